"""The lake: every accepted event in Parquet, what comes in and what is known from it; beside it the refused."""
