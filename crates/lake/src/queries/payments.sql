WITH used AS (
  SELECT
    account,
    count(*) AS exchanges,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_nanodollars) AS cost_nanodollars
  FROM exchanges
  WHERE "at" >= $since AND "at" < $until
  GROUP BY account
)
SELECT
  lpad(to_hex(accounts.payment), 16, '0') AS payment,
  count(*) AS accounts,
  min(accounts.opened) AS first_opened,
  max(accounts.opened) AS last_opened,
  sum(coalesce(used.exchanges, 0)) AS exchanges,
  sum(used.prompt_tokens) AS prompt_tokens,
  sum(used.completion_tokens) AS completion_tokens,
  sum(used.cost_nanodollars) AS cost_nanodollars
FROM accounts
LEFT JOIN used ON used.account = accounts.account
WHERE accounts.payment IS NOT NULL
GROUP BY accounts.payment
HAVING count(*) >= $accounts
ORDER BY accounts DESC, 1
