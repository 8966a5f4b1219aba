"""Targets for libFuzzer, one file each, and what builds them."""
