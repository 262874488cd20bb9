"""Decisions: from a person to what their onboarding shows next, with the reasons."""
