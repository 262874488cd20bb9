"""What one would write without Firstmile: features by `get_online_features().to_df()`, then `predict`.

Bento's switches are the same as the decision service's, and so is the online store; the pages of Feast, MLflow and
BentoML show the rest like this.
"""

from typing import Any

import bentoml

from feature_repo.feature_store.store import feature_store
from feature_repo.settings import Settings, now_us


@bentoml.service(
    name="plain",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
)
class Plain:
    """The champion behind three endpoints that differ in how it predicts."""

    def __init__(self) -> None:
        import warnings

        import mlflow

        from training import registry

        settings = Settings()
        mlflow.set_tracking_uri(settings.tracking_uri)
        self.model = registry.load(settings)
        self.pyfunc_model = mlflow.pyfunc.load_model(f"models:/{self.model.name}@{registry.CHAMPION}")
        self.store = feature_store(settings, lineage=False)
        warnings.simplefilter("ignore")  # Bento has Pydantic warn at every request here, which takes time
        self.service = self.store.get_feature_service(self.model.feature_service)

    def rows(self, user_id: str) -> Any:
        """The features of one person as a data frame."""
        asked = [{"user_id": user_id, "now_us": now_us()}]
        return self.store.get_online_features(features=self.service, entity_rows=asked).to_df()[self.model.features]

    @bentoml.api
    def pyfunc(self, user_id: str) -> Any:
        """With MLflow's pyfunc, as MLflow's pages do it."""
        return self.pyfunc_model.predict(self.rows(user_id)).to_dict("records")[0]

    @bentoml.api
    def bare(self, user_id: str) -> Any:
        """With the model itself, without what pyfunc checks."""
        return self.model.predict(self.rows(user_id)).to_dict("records")[0]

    @bentoml.api
    def fast(self, user_id: str) -> Any:
        """With the model's path for one row, which the decision service takes too: what then is left is Feast's."""
        values = self.rows(user_id).iloc[0].tolist()
        score, segment = self.model.score_one([None if v is None or v != v else v for v in values])
        return {"score": score, "segment": segment}
