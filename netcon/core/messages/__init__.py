"""Messages: one immutable class per verb, with `VERB`, `encode()` and `decode(body)`; the body begins at offset 28 (vl1 §4).

`OkX` classes are what an OK to verb X carries after the in-re header (offset 37), with `IN_RE` in place of `VERB`. Every
`decode` raises `DecodeError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from netcon.core.messages.frames import ExtFrame, Frame, OkExtFrame
from netcon.core.messages.hello import Hello, MoonVersion, OkHello
from netcon.core.messages.misc import (
    Ack,
    Nop,
    PathNegotiationRequest,
    QosMeasurement,
    QosRecord,
    RemoteTrace,
    UnknownMessage,
    UserMessage,
)
from netcon.core.messages.multicast import (
    GatherResults,
    Like,
    MulticastFrame,
    MulticastGather,
    MulticastLike,
    OkMulticastFrame,
    OkMulticastGather,
)
from netcon.core.messages.network_config import (
    NetworkConfigPush,
    NetworkConfigRequest,
    OkNetworkConfig,
    OkNetworkConfigRequest,
)
from netcon.core.messages.network_credentials import NetworkCredentials
from netcon.core.messages.paths import (
    DirectPath,
    Echo,
    OkEcho,
    OkWhois,
    PushDirectPaths,
    Rendezvous,
    Whois,
)
from netcon.core.messages.replies import AuthenticationRequired, Error, Ok, UnwantedMulticast
from netcon.core.packet import ErrorCode, Verb

Reply = OkHello | OkWhois | OkEcho | OkExtFrame | OkMulticastGather | OkMulticastFrame | OkNetworkConfigRequest | OkNetworkConfig
ErrorDetail = UnwantedMulticast | AuthenticationRequired
Message = (
    Nop
    | Hello
    | Error
    | Ok
    | Whois
    | Rendezvous
    | Frame
    | ExtFrame
    | Echo
    | MulticastLike
    | NetworkCredentials
    | NetworkConfigRequest
    | NetworkConfigPush
    | MulticastGather
    | MulticastFrame
    | PushDirectPaths
    | Ack
    | QosMeasurement
    | UserMessage
    | RemoteTrace
    | PathNegotiationRequest
    | UnknownMessage
)

_DECODERS: dict[int, Callable[[bytes], Message]] = {
    Verb.NOP: Nop.decode,
    Verb.HELLO: Hello.decode,
    Verb.ERROR: Error.decode,
    Verb.OK: Ok.decode,
    Verb.WHOIS: Whois.decode,
    Verb.RENDEZVOUS: Rendezvous.decode,
    Verb.FRAME: Frame.decode,
    Verb.EXT_FRAME: ExtFrame.decode,
    Verb.ECHO: Echo.decode,
    Verb.MULTICAST_LIKE: MulticastLike.decode,
    Verb.NETWORK_CREDENTIALS: NetworkCredentials.decode,
    Verb.NETWORK_CONFIG_REQUEST: NetworkConfigRequest.decode,
    Verb.NETWORK_CONFIG: NetworkConfigPush.decode,
    Verb.MULTICAST_GATHER: MulticastGather.decode,
    Verb.MULTICAST_FRAME: MulticastFrame.decode,
    Verb.PUSH_DIRECT_PATHS: PushDirectPaths.decode,
    Verb.ACK: Ack.decode,
    Verb.QOS_MEASUREMENT: QosMeasurement.decode,
    Verb.USER_MESSAGE: UserMessage.decode,
    Verb.REMOTE_TRACE: RemoteTrace.decode,
    Verb.PATH_NEGOTIATION_REQUEST: PathNegotiationRequest.decode,
}

_REPLY_DECODERS: dict[int, Callable[[bytes], Reply]] = {
    Verb.HELLO: OkHello.decode,
    Verb.WHOIS: OkWhois.decode,
    Verb.ECHO: OkEcho.decode,
    Verb.EXT_FRAME: OkExtFrame.decode,
    Verb.MULTICAST_GATHER: OkMulticastGather.decode,
    Verb.MULTICAST_FRAME: OkMulticastFrame.decode,
    Verb.NETWORK_CONFIG_REQUEST: OkNetworkConfigRequest.decode,
    Verb.NETWORK_CONFIG: OkNetworkConfig.decode,
}


def decode_message(verb: int, body: bytes) -> Message:
    """The message of a verb (5 bits, without the compressed bit); `UnknownMessage` for verbs that we do not know."""
    decoder = _DECODERS.get(verb)
    return UnknownMessage(verb, body) if decoder is None else decoder(body)


def decode_reply(ok: Ok) -> Reply | None:
    """What an OK carries; None if it answers a verb that has no reply."""
    decoder = _REPLY_DECODERS.get(ok.in_re_verb)
    return None if decoder is None else decoder(ok.data)


def decode_error(error: Error) -> ErrorDetail | None:
    """What an ERROR carries beyond a network id (`Error.network`), or None."""
    match error.code:
        case ErrorCode.UNWANTED_MULTICAST:
            return UnwantedMulticast.decode(error.data)
        case ErrorCode.NETWORK_AUTHENTICATION_REQUIRED:
            return AuthenticationRequired.decode(error.data)
    return None


__all__ = [
    "Ack",
    "AuthenticationRequired",
    "DirectPath",
    "Echo",
    "Error",
    "ErrorCode",
    "ErrorDetail",
    "ExtFrame",
    "Frame",
    "GatherResults",
    "Hello",
    "Like",
    "Message",
    "MoonVersion",
    "MulticastFrame",
    "MulticastGather",
    "MulticastLike",
    "NetworkConfigPush",
    "NetworkConfigRequest",
    "NetworkCredentials",
    "Nop",
    "Ok",
    "OkEcho",
    "OkExtFrame",
    "OkHello",
    "OkMulticastFrame",
    "OkMulticastGather",
    "OkNetworkConfig",
    "OkNetworkConfigRequest",
    "OkWhois",
    "PathNegotiationRequest",
    "PushDirectPaths",
    "QosMeasurement",
    "QosRecord",
    "RemoteTrace",
    "Rendezvous",
    "Reply",
    "UnknownMessage",
    "UnwantedMulticast",
    "UserMessage",
    "Whois",
    "decode_error",
    "decode_message",
    "decode_reply",
]
