from hypothesis import settings

# A deadline per example says how busy the machine is, and nothing of the code.
settings.register_profile("modelstream", deadline=None)
settings.load_profile("modelstream")
