"""Texts about users and items, written by rule or by a language model."""
