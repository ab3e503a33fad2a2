//! From weighted pairs to groups.

use std::collections::BTreeMap;

/// Groups `count` nodes so that the sum of weights inside groups is largest, as far as moving one node or one group at
/// a time can find it: the local moving and aggregation of Louvain (Blondel et al. 2008) under the constant Potts model
/// (Traag et al. 2011). Every pair inside a group costs `resolution`; weights may be negative.
///
/// Nodes are visited in order, so the result is the same every time. Returns the groups of two and more, each
/// sorted and held together by positive weights.
pub(crate) fn groups(count: usize, edges: &[(usize, usize, f64)], resolution: f64) -> Vec<Vec<usize>> {
    let mut of: Vec<usize> = (0..count).collect();
    let mut level = Level::new(count, edges, resolution);
    loop {
        let (moved, labels) = level.local_moving();
        if !moved {
            break;
        }
        let (next, renumbered) = level.aggregate(&labels);
        for group in &mut of {
            *group = renumbered[*group];
        }
        level = next;
    }
    connected(&of, edges)
}

#[derive(Debug)]
struct Level {
    sizes: Vec<f64>,
    neighbours: Vec<BTreeMap<usize, f64>>,
    resolution: f64,
}

impl Level {
    fn new(count: usize, edges: &[(usize, usize, f64)], resolution: f64) -> Self {
        let mut neighbours = vec![BTreeMap::new(); count];
        for &(a, b, weight) in edges {
            *neighbours[a].entry(b).or_insert(0.0) += weight;
            *neighbours[b].entry(a).or_insert(0.0) += weight;
        }
        Self { sizes: vec![1.0; count], neighbours, resolution }
    }

    fn local_moving(&self) -> (bool, Vec<usize>) {
        const GAIN: f64 = 1e-9;
        let mut labels: Vec<usize> = (0..self.sizes.len()).collect();
        let mut sizes = self.sizes.clone();
        let mut moved = false;
        for _round in 0..100 {
            let mut changed = false;
            for node in 0..labels.len() {
                let home = labels[node];
                sizes[home] -= self.sizes[node];
                let mut sums: BTreeMap<usize, f64> = BTreeMap::from([(home, 0.0)]);
                for (other, weight) in &self.neighbours[node] {
                    *sums.entry(labels[*other]).or_default() += weight;
                }
                let gain = |group: usize, sum: f64| sum - self.resolution * self.sizes[node] * sizes[group];
                let mut best = (home, gain(home, sums[&home]));
                // A node may also leave for the group that bears its own number, if nobody is in it.
                if sizes[node] <= 0.0 {
                    sums.entry(node).or_insert(0.0);
                }
                for (group, sum) in &sums {
                    let gain = gain(*group, *sum);
                    if gain > best.1 + GAIN {
                        best = (*group, gain);
                    }
                }
                labels[node] = best.0;
                sizes[best.0] += self.sizes[node];
                changed |= best.0 != home;
            }
            moved |= changed;
            if !changed {
                break;
            }
        }
        (moved, labels)
    }

    fn aggregate(&self, labels: &[usize]) -> (Self, Vec<usize>) {
        let mut numbers = BTreeMap::new();
        let renumbered: Vec<usize> = labels
            .iter()
            .map(|label| {
                let next = numbers.len();
                *numbers.entry(*label).or_insert(next)
            })
            .collect();
        let mut next = Self {
            sizes: vec![0.0; numbers.len()],
            neighbours: vec![BTreeMap::new(); numbers.len()],
            resolution: self.resolution,
        };
        for (node, group) in renumbered.iter().enumerate() {
            next.sizes[*group] += self.sizes[node];
            for (other, weight) in &self.neighbours[node] {
                if renumbered[*other] != *group {
                    *next.neighbours[*group].entry(renumbered[*other]).or_insert(0.0) += weight;
                }
            }
        }
        (next, renumbered)
    }
}

/// Splits each group into what positive weights hold together.
fn connected(of: &[usize], edges: &[(usize, usize, f64)]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..of.len()).collect();
    fn root(parent: &mut [usize], mut node: usize) -> usize {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    }
    for &(a, b, weight) in edges {
        if weight > 0.0 && of[a] == of[b] {
            let (a, b) = (root(&mut parent, a), root(&mut parent, b));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for node in 0..of.len() {
        groups.entry(root(&mut parent, node)).or_default().push(node);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_groups_and_a_loner() {
        let mut edges = Vec::new();
        for a in 0..7 {
            for b in a + 1..7 {
                let together = a / 3 == b / 3 && a < 6 && b < 6;
                edges.push((a, b, if together { 2.0 } else { -1.0 }));
            }
        }
        assert_eq!(groups(7, &edges, 0.0), vec![vec![0, 1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn one_strong_pair_does_not_merge_two_groups() {
        let mut edges = vec![(2, 3, 3.0)];
        for (a, b) in [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)] {
            edges.push((a, b, 2.0));
        }
        assert_eq!(groups(6, &edges, 0.5), vec![vec![0, 1, 2], vec![3, 4, 5]]);
        assert!(groups(0, &[], 0.5).is_empty());
    }
}
