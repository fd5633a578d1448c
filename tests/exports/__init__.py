"""Exports of the frameworks and their own answers, with which the served answers are compared."""
