"""Labels, point-in-time datasets, candidates, evaluation, the promotion gate: the only room that talks to MLflow."""
