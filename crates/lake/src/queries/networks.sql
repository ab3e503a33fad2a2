WITH told AS (
  SELECT
    network,
    account,
    count(*) AS exchanges,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_nanodollars) AS cost_nanodollars,
    min("at") AS first,
    max("at") AS last
  FROM exchanges
  WHERE network IS NOT NULL AND "at" >= $since AND "at" < $until
  GROUP BY network, account
)
SELECT
  lpad(to_hex(network), 16, '0') AS network,
  count(*) AS accounts,
  sum(exchanges) AS exchanges,
  sum(prompt_tokens) AS prompt_tokens,
  sum(completion_tokens) AS completion_tokens,
  sum(cost_nanodollars) AS cost_nanodollars,
  min(first) AS first,
  max(last) AS last
FROM told
GROUP BY network
HAVING count(*) >= $accounts
ORDER BY accounts DESC, exchanges DESC, 1
