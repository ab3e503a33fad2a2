WITH used AS (
  SELECT
    account,
    min("at") AS first,
    max("at") AS last,
    count(*) AS exchanges,
    count(DISTINCT prompt) AS prompts,
    count(DISTINCT template) AS templates,
    count(DISTINCT network) AS networks,
    count(DISTINCT address) AS addresses,
    count(DISTINCT agent) AS agents,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_nanodollars) AS cost_nanodollars
  FROM exchanges
  WHERE "at" >= $since AND "at" < $until AND ($account = '' OR account = $account)
  GROUP BY account
),
refused AS (
  SELECT account, count(*) AS refused
  FROM refusals
  WHERE "at" >= $since AND "at" < $until
  GROUP BY account
)
SELECT
  used.account,
  accounts.opened,
  lpad(to_hex(accounts.payment), 16, '0') AS payment,
  used.first,
  used.last,
  used.exchanges,
  coalesce(refused.refused, 0) AS refused,
  used.prompts,
  used.templates,
  used.networks,
  used.addresses,
  used.agents,
  used.prompt_tokens,
  used.completion_tokens,
  used.cost_nanodollars
FROM used
LEFT JOIN accounts ON accounts.account = used.account
LEFT JOIN refused ON refused.account = used.account
ORDER BY used.account
