"""A search that goes on where it was killed, by optuna: run the script again."""

import optuna
from sklearn.model_selection import cross_val_score

from sklearn_longbert import LongBertClassifier, TextChunker

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
documents = TextChunker(chunk_size=64).fit_transform(texts)


def objective(trial):
    model = LongBertClassifier(
        chunk_size=64,
        freeze_encoder=True,
        pooling=trial.suggest_categorical("pooling", ["mean", "max"]),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        random_state=0,
    )
    return cross_val_score(model, documents, labels, cv=2, scoring="neg_log_loss").mean()


study = optuna.create_study(
    study_name="cooking",
    direction="maximize",
    storage="sqlite:///study.db",
    load_if_exists=True,
    sampler=optuna.samplers.TPESampler(seed=0),
)
finished = [trial for trial in study.trials if trial.state.is_finished()]
study.optimize(objective, n_trials=4 - len(finished))
assert len(study.trials) >= 4
