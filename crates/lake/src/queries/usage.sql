SELECT
  account,
  CAST("at" AS DATE) AS day,
  count(*) AS exchanges,
  sum(prompt_tokens) AS prompt_tokens,
  sum(cached_tokens) AS cached_tokens,
  sum(completion_tokens) AS completion_tokens,
  sum(cost_nanodollars) AS cost_nanodollars
FROM exchanges
WHERE "at" >= $since AND "at" < $until AND ($account = '' OR account = $account)
GROUP BY account, CAST("at" AS DATE)
ORDER BY account, day
