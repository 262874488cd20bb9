"""Events, history, features: from what people did to exact rows in a feature store."""
