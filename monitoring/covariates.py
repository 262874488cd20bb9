"""What was known of people just before an experiment: their segment, and a prediction that narrows the intervals."""

import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.buckets import unit_interval
from feature_repo.settings import Settings
from monitoring import replay
from monitoring.sequential import Floats
from training import dataset, registry
from training.candidates import Logistic

FOLDS = 5


def before(settings: Settings, people: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """(features, champion's segment) of each person one microsecond before their exposure, in the order of `people`.

    people: user_id, exposed_us. The segment is null where there is no champion.
    """
    domain = domains.load(settings.domain)
    asked = people[["user_id"]].assign(now_us=people["exposed_us"] - 1)
    asked["event_timestamp"] = pd.to_datetime(asked["now_us"], unit="us", utc=True).astype("datetime64[us, UTC]")
    found = dataset.with_features(settings, asked)
    rows = asked.merge(found.drop(columns="event_timestamp"), on=["user_id", "now_us"], how="left")
    rows.index = people.index
    try:
        model = registry.load(settings)
    except registry.NoModelError:
        return rows[dataset.inputs(domain)], pd.Series(None, people.index, dtype=object)
    return rows[dataset.inputs(domain)], replay.predicted(model, domain.label, rows)["segment"]


def cross_fitted(features: pd.DataFrame, users: pd.Series, y: pd.Series) -> Floats:
    """A prediction of y for everybody, by a model that has not seen them: of the people of the other folds.

    So it depends on nothing that came of the person, and adjusting by it does not bias (cross-fitting: Chernozhukov et
    al., 2018). The champion's score would not do: it may have learnt from what came of these very people.

    users: ids, which say the fold. y: 0/1, NaN where it is not known yet. NaN for everybody where there are too few.
    """
    fold = users.map(lambda u: int(FOLDS * unit_interval("fold", u))).to_numpy()
    known, found = y.notna().to_numpy(), np.full(len(y), np.nan)
    texts = [str(c) for c in features if features[c].dtype == object]
    for f in range(FOLDS):
        others, mine = known & (fold != f), fold == f
        if y[others].nunique() < 2:
            return np.full(len(y), np.nan)
        model = Logistic(texts).fit(features[others], y[others].astype(int))
        found[mine] = model.predict_proba(features[mine])[:, 1]
    return found
