"""Forecasting: run time, queue wait, load, price and carbon, each with its source and its published error.

Pure: no clock, no I/O, no random numbers but from a seed. Imports the domain only. Its libraries
(lightgbm, numba, numpy) are slow to load: import it only where a forecast is made, never at the start of the CLI or the API.
"""
