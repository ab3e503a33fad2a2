use std::collections::HashMap;

use anbiq_domain::Keyed;

use crate::compose::Stream;

/// Accounts on one address beyond which even a simple rule takes it for a carrier.
const CROWD: usize = 20;

/// Accounts joined by a payment or an address that they share: the component of each account, and how many each has.
pub(crate) fn components(stream: &Stream) -> (Vec<usize>, Vec<usize>) {
    let mut users: HashMap<Keyed, Vec<usize>> = HashMap::new();
    for (account, party) in stream.parties.iter().enumerate() {
        users.entry(party.payment).or_default().push(account);
    }
    for row in &stream.rows {
        let users = users.entry(row.network).or_default();
        let account = row.account as usize;
        // Rows of one account come often; a crowd is never joined.
        if users.len() <= CROWD && !users.contains(&account) {
            users.push(account);
        }
    }
    let mut parent: Vec<usize> = (0..stream.parties.len()).collect();
    let mut shared: Vec<&Vec<usize>> = users.values().filter(|users| users.len() <= CROWD).collect();
    shared.sort();
    for pair in shared.iter().flat_map(|users| users.windows(2)) {
        if let [one, other] = pair {
            let (one, other) = (root(&mut parent, *one), root(&mut parent, *other));
            parent[one.max(other)] = one.min(other);
        }
    }
    let of: Vec<usize> = (0..parent.len()).map(|account| root(&mut parent, account)).collect();
    let mut sizes = vec![0; of.len()];
    of.iter().for_each(|component| sizes[*component] += 1);
    (of, sizes)
}

fn root(parent: &mut [usize], mut node: usize) -> usize {
    while parent[node] != node {
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    node
}
