"""Attacks and certificates: their names and their settings."""

ATTACKS = ("fgsm", "pgd", "fmn")

CERTIFICATES = ("ibp", "crown", "exact")

PGD_STEPS, PGD_RESTARTS, FMN_STEPS = 40, 2, 100

EXACT_SECONDS = 60.0
