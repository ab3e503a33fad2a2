WITH told AS (
  SELECT account, network, address, agent FROM exchanges WHERE "at" >= $since AND "at" < $until
),
traits AS (
  SELECT account, 'payment' AS kind, payment AS value FROM accounts WHERE payment IS NOT NULL
  UNION ALL
  SELECT DISTINCT account, 'network' AS kind, network AS value FROM told WHERE network IS NOT NULL
  UNION ALL
  SELECT DISTINCT account, 'address' AS kind, address AS value FROM told WHERE address IS NOT NULL
  UNION ALL
  SELECT DISTINCT account, 'agent' AS kind, agent AS value FROM told WHERE agent IS NOT NULL
),
rare AS (
  SELECT kind, value, count(*) AS holders
  FROM traits
  GROUP BY kind, value
  HAVING count(*) >= 2 AND count(*) <= $holders
)
SELECT
  one.account AS account,
  other.account AS other,
  count(*) AS shared,
  sum(CASE WHEN one.kind = 'payment' THEN 1 ELSE 0 END) AS payments,
  sum(CASE WHEN one.kind = 'network' THEN 1 ELSE 0 END) AS networks,
  sum(CASE WHEN one.kind = 'address' THEN 1 ELSE 0 END) AS addresses,
  sum(CASE WHEN one.kind = 'agent' THEN 1 ELSE 0 END) AS agents,
  min(rare.holders) AS rarest
FROM rare
JOIN traits AS one ON one.kind = rare.kind AND one.value = rare.value
JOIN traits AS other ON other.kind = rare.kind AND other.value = rare.value
WHERE one.account < other.account
GROUP BY one.account, other.account
ORDER BY shared DESC, rarest, account, other
