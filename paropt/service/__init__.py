"""Only what scripts written for paropt 0.1 import: ``paropt.service.storage``."""
