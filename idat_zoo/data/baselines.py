"""What raw pixels alone reach on a task: logistic regression and the nearest neighbour."""

import numpy as np

from idat_zoo.data.task_data import TaskData


def raw_pixel_baselines(data: TaskData) -> dict[str, float]:
    """Top-1 on test, as fractions, learnt from all 1,000 raw images; {} where a task has none.

    Logistic regression on standardised pixels (scikit-learn's defaults), and 1-nearest-neighbour.
    """
    if data.raw_pixels is None:
        return {}
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, unseen = data.trainval.targets.numpy(), data.test.targets.numpy()
    models = {
        "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "nearest_neighbour": KNeighborsClassifier(n_neighbors=1),
    }
    return {
        name: float(
            np.mean(
                model.fit(data.raw_pixels.trainval, seen).predict(data.raw_pixels.test) == unseen
            )
        )
        for name, model in models.items()
    }
