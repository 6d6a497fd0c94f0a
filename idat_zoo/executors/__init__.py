"""Executors: the engines that train the turns of a call on other processes or machines."""
