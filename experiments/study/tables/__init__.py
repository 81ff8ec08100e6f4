"""Tables that a study ends in: mean and spread over seeds, drops between domains, networks at chance."""
