SELECT
  "grant",
  account,
  model,
  count(*) AS exchanges,
  count(DISTINCT prompt) AS prompts,
  sum(prompt_tokens) AS prompt_tokens,
  sum(completion_tokens) AS completion_tokens,
  sum(cost_nanodollars) AS cost_nanodollars,
  min("at") AS first,
  max("at") AS last
FROM exchanges
WHERE "grant" IS NOT NULL AND "at" >= $since AND "at" < $until
GROUP BY "grant", account, model
ORDER BY "grant", account, model
