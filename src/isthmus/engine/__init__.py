"""Task and attempt life cycles: intents, placement rounds, leases, fencing, submission, observation, collection.

The only writer of task and attempt state. Never imports api, cli or client.
"""
