-- Accounts are counted after they are grouped, here and elsewhere: what is grouped goes to the disk where memory ends, and a set for
-- each group does not.
WITH told AS (
  SELECT
    CAST("at" AS DATE) AS day,
    account,
    count(*) AS exchanges,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(twin_tokens) AS twin_tokens,
    sum(cost_nanodollars) AS cost_nanodollars,
    sum(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END) AS failed
  FROM exchanges
  WHERE "at" >= $since AND "at" < $until
  GROUP BY CAST("at" AS DATE), account
)
SELECT
  day,
  count(*) AS accounts,
  sum(exchanges) AS exchanges,
  sum(prompt_tokens) AS prompt_tokens,
  sum(completion_tokens) AS completion_tokens,
  sum(twin_tokens) AS twin_tokens,
  sum(cost_nanodollars) AS cost_nanodollars,
  sum(failed) AS failed
FROM told
GROUP BY day
ORDER BY day
