"""Experiments: who gets which variant of the onboarding, and why. A decision is pure; the file is checked as a whole.

saas.yaml      the experiments of a domain          parsing.py   the file, checked, with lines
declared.py    what an experiment is                assign.py    (experiments, person, time) -> variants
paused.py      which ones guardrails have paused
"""
