"""How good are the scores, and do they still hold?"""
