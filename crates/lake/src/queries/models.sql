SELECT
  account,
  model,
  count(*) AS exchanges,
  sum(prompt_tokens) AS prompt_tokens,
  sum(cached_tokens) AS cached_tokens,
  sum(completion_tokens) AS completion_tokens,
  sum(twin_tokens) AS twin_tokens,
  sum(cost_nanodollars) AS cost_nanodollars,
  min("at") AS first,
  max("at") AS last
FROM exchanges
WHERE "at" >= $since AND "at" < $until AND ($account = '' OR account = $account)
GROUP BY account, model
ORDER BY account, model
