"""Reads labels, preprocessing and kind of scores from where exporters write them."""
