from hypothesis import HealthCheck, settings

# how long an example takes is up to whatever else runs on the machine
settings.register_profile("parityfl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parityfl")
