"""What the papers claim, each claim with the study that puts it to the test; `experiments/claims.py` runs them.

`claim` says what a claim is made of. Each paper has a file of its claims and of the studies that these need: a new
claim is one entry there. `library` has them all. `measures` reads a study's results, `verdicts` decides,
`running` runs the studies, `page` writes what came out; `testing` does all of it.
"""
