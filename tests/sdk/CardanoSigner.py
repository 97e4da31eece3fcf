"""Stands in for the SDK's module that signs transactions, which has no wheel.

It is a build of Rust and C++ that fetches its parts from elsewhere. Wallets need it;
cancelling does not sign anything.
"""
