-- An account that is declared is written down at every start of a gateway, with less known of it; it was opened once. Where
-- several means of payment are told of, the least of their hashes stands for it.
SELECT account, min("at") AS opened, min(payment) AS payment
FROM entries
WHERE entry = 'account_opened'
GROUP BY account
