"""Rollout: should more users see it, or none?"""
