"""Why: reasons in words, for the product and for the person.

sentences.py       contributions ─► sentences        further.py         features after one more act
words.py           values in people's units          counterfactual.py  the fewest acts that lead on
contributions.py   a model's contributions           explanation.py     `explain: true`, all together
answers.py         the structs of the answers        person.py, page.py GET /v1/users/{id}/why
"""
