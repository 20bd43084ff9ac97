"""Gram matrices, normal equations and their solution."""
