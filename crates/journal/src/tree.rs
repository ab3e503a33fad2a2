//! The Merkle tree of RFC 9162 (section 2.1) over SHA-256: how one signed root speaks for every record.
//!
//! A leaf is `H(0x00 || payload)`, an inner node `H(0x01 || left || right)`, and the left half of a tree of `n` leaves
//! holds the largest power of two below `n`. The two prefixes keep a leaf from posing as a node.

use anbiq_domain::Digest;

/// The hash of a leaf whose content is `payload`.
pub fn leaf_hash(payload: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], payload])
}

/// The hash of the node above `left` and `right`.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// A tree that grows leaf by leaf and knows its root, in memory logarithmic in its size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Roots of the perfect subtrees, largest first: one for each bit that is set in `size`.
    peaks: Vec<Digest>,
}

impl Tree {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a leaf, given its [`leaf_hash`].
    pub fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        // Each trailing 1 of the size is a peak as high as `node`: the two make one that is a step higher.
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root; of the empty tree it is the hash of nothing.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(lowest) = peaks.next() else { return Digest::of(b"") };
        peaks.fold(*lowest, |right, left| node_hash(left, &right))
    }

    /// How many leaves it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees that it is made of, largest first: all that must be kept of it to go on.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// The tree of `size` leaves whose [`Tree::peaks`] are these; `None` where there must be more or fewer of them.
    pub fn resume(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }
}

/// A whole tree in memory (64 bytes a leaf), for making many proofs. Of its first leaves the peaks are enough.
///
/// Each level pairs up the one below, and a node without a partner moves up as it is. That is the same tree as the
/// recursive definition of RFC 9162.
#[derive(Debug, Clone)]
pub struct Levels {
    levels: Vec<Level>,
    /// How many leaves at the beginning are known by their peaks only.
    before: u64,
    size: u64,
}

/// The nodes of one height from one of even number on.
#[derive(Debug, Clone)]
struct Level {
    start: u64,
    nodes: Vec<Digest>,
}

impl Level {
    fn get(&self, number: u64) -> Option<Digest> {
        self.nodes.get(usize::try_from(number.checked_sub(self.start)?).ok()?).copied()
    }
}

impl Levels {
    /// The tree of `leaves`, given as [`leaf_hash`]es in order.
    pub fn new(leaves: Vec<Digest>) -> Self {
        Self::after(&Tree::new(), leaves)
    }

    /// The tree of the leaves of `before` and of `leaves` after them. It has proofs for the latter only.
    pub fn after(before: &Tree, leaves: Vec<Digest>) -> Self {
        let size = before.size + leaves.len() as u64;
        let mut levels: Vec<Level> = Vec::new();
        let mut peaks = before.peaks.clone();
        let mut nodes = leaves;
        for height in 0..=u64::BITS {
            // Where `before` ends in the middle of a pair its peak is the pair's left half.
            let mut start = before.size.checked_shr(height).unwrap_or_default();
            if start & 1 == 1 {
                start -= 1;
                nodes.splice(0..0, peaks.pop());
            }
            let top = start == 0 && nodes.len() <= 1;
            let above = nodes.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                alone => alone[0],
            });
            let above = above.collect();
            levels.push(Level { start, nodes });
            nodes = above;
            if top {
                break;
            }
        }
        Self { levels, before: before.size, size }
    }

    /// How many leaves it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.get(0)).unwrap_or_else(|| Digest::of(b""))
    }

    /// The hash of leaf `index`; `None` beyond the end, and where only peaks are known.
    pub fn leaf(&self, index: u64) -> Option<Digest> {
        (index >= self.before).then(|| self.levels.first()?.get(index)).flatten()
    }

    /// The audit path of leaf `index`, from the leaf's sibling up (RFC 9162, section 2.1.3.1); `None` where there is no
    /// such [`Levels::leaf`].
    pub fn inclusion_proof(&self, index: u64) -> Option<Vec<Digest>> {
        self.leaf(index)?;
        let mut position = index;
        let mut proof = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            proof.extend(level.get(position ^ 1));
            position >>= 1;
        }
        Some(proof)
    }

    /// A proof that the tree of the first `old_size` leaves is a prefix of this one (RFC 9162, section 2.1.4.1); empty
    /// where the sizes are equal or `old_size` is 0. `None` where it is too large, or ends among the leaves of which only
    /// peaks are known.
    pub fn consistency_proof(&self, old_size: u64) -> Option<Vec<Digest>> {
        if old_size == 0 || old_size == self.size {
            return Some(Vec::new());
        }
        let mut proof = Vec::new();
        let known = self.before <= old_size && old_size < self.size;
        (known && self.subproof(0, self.size, old_size, true, &mut proof).is_some()).then_some(proof)
    }

    /// The part of a consistency proof within the leaves `start..end`; `whole` says that the verifier has the root of
    /// `start..old` already.
    fn subproof(&self, start: u64, end: u64, old: u64, whole: bool, proof: &mut Vec<Digest>) -> Option<()> {
        if old == end {
            if !whole {
                proof.push(self.root_of(start, end)?);
            }
            return Some(());
        }
        let middle = start + split(end - start);
        if old <= middle {
            self.subproof(start, middle, old, whole, proof)?;
            proof.push(self.root_of(middle, end)?);
        } else {
            self.subproof(middle, end, old, false, proof)?;
            proof.push(self.root_of(start, middle)?);
        }
        Some(())
    }

    /// The node above the leaves `start..end`, which are a perfect subtree or what is left at the end.
    fn root_of(&self, start: u64, end: u64) -> Option<Digest> {
        let height = (end - start).next_power_of_two().trailing_zeros();
        self.levels.get(height as usize)?.get(start >> height)
    }
}

/// The audit path of leaf `index` among `leaves`; empty where there is no such leaf. For many proofs use [`Levels`].
pub fn inclusion_proof(leaves: &[Digest], index: u64) -> Vec<Digest> {
    Levels::new(leaves.to_vec()).inclusion_proof(index).unwrap_or_default()
}

/// Does `proof` show that `leaf` is number `index` in the tree of `size` leaves under `root`?
/// (RFC 9162, section 2.1.3.2.)
pub fn verify_inclusion(leaf: &Digest, index: u64, size: u64, proof: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last) = (index, size - 1);
    let mut node = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            node = node_hash(sibling, &node);
            // A node without a partner moved up unhashed: skip the levels where that happened.
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && node == *root
}

/// [`Levels::consistency_proof`] among `leaves`; empty also where `old_size` is too large.
pub fn consistency_proof(leaves: &[Digest], old_size: u64) -> Vec<Digest> {
    Levels::new(leaves.to_vec()).consistency_proof(old_size).unwrap_or_default()
}

/// The largest power of two below `size`, which is 2 or more.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Does `proof` show that the tree of `old_size` leaves under `old_root` is a prefix of the one of `size` leaves under
/// `root`? (RFC 9162, section 2.1.4.2.) The empty tree is a prefix of every tree.
pub fn verify_consistency(old_size: u64, old_root: &Digest, size: u64, root: &Digest, proof: &[Digest]) -> bool {
    if old_size > size {
        return false;
    }
    if old_size == 0 || old_size == size {
        return proof.is_empty() && if old_size == 0 { *old_root == Digest::of(b"") } else { old_root == root };
    }
    let mut path = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    // Trailing ones are levels on which the old tree's right edge is inside a perfect subtree.
    let shift = (old_size - 1).trailing_ones();
    let (mut position, mut last) = ((old_size - 1) >> shift, (size - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Certificate Transparency's reference leaves and tree heads (RFC 6962's test data).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn reference_leaves() -> Vec<Digest> {
        LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect()
    }

    fn digest(text: &str) -> Digest {
        text.parse().unwrap()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves = reference_leaves();
        let mut tree = Tree::new();
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!(tree.root(), digest(root), "size {size}");
            assert_eq!(Levels::new(leaves[..size].to_vec()).root(), digest(root), "size {size}");
            if let Some(leaf) = leaves.get(size) {
                tree.push(*leaf);
            }
        }
    }

    #[test]
    fn proofs_are_those_of_certificate_transparency() {
        let leaves = reference_leaves();
        let path = |hashes: &[&str]| hashes.iter().map(|hash| digest(hash)).collect::<Vec<_>>();
        let a = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
        let b = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
        let c = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
        let d = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
        let e = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
        assert_eq!(inclusion_proof(&leaves, 0), path(&[a, b, c]));
        assert_eq!(inclusion_proof(&leaves, 5), path(&[d, e, ROOTS[4]]));
        assert_eq!(inclusion_proof(&leaves[..3], 2), path(&[ROOTS[2]]));
        assert_eq!(consistency_proof(&leaves[..5], 2), path(&[b, d]));
    }

    /// RFC 9162's recursive definitions, word for word.
    mod brute {
        use super::super::{Digest, leaf_hash, node_hash};

        pub(super) fn root(leaves: &[Digest]) -> Digest {
            match leaves {
                [] => Digest::of(b""),
                [one] => *one,
                many => {
                    let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
                    node_hash(&root(left), &root(right))
                }
            }
        }

        pub(super) fn path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
            if leaves.len() < 2 {
                return Vec::new();
            }
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let (mut proof, sibling) = if index < left.len() {
                (path(index, left), root(right))
            } else {
                (path(index - left.len(), right), root(left))
            };
            proof.push(sibling);
            proof
        }

        pub(super) fn leaves(size: usize) -> Vec<Digest> {
            (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect()
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_holds_and_no_other() {
        for size in 1..=33_usize {
            let leaves = brute::leaves(size);
            let root = brute::root(&leaves);
            for index in 0..size {
                let proof = inclusion_proof(&leaves, index as u64);
                assert_eq!(proof, brute::path(index, &leaves));
                for claimed in 0..size as u64 + 1 {
                    let holds = verify_inclusion(&leaves[index], claimed, size as u64, &proof, &root);
                    assert_eq!(holds, claimed == index as u64, "{index} as {claimed} of {size}");
                }
            }
            for old in 0..=size {
                let old_root = brute::root(&leaves[..old]);
                let proof = consistency_proof(&leaves, old as u64);
                for claimed in 0..=size as u64 + 1 {
                    let holds = verify_consistency(claimed, &old_root, size as u64, &root, &proof);
                    assert_eq!(holds, claimed == old as u64, "{old} as {claimed} of {size}");
                }
            }
        }
    }

    #[test]
    fn proofs_need_only_the_peaks_of_what_is_gone() {
        for size in 0..=33_usize {
            let leaves = brute::leaves(size);
            let whole = Levels::new(leaves.clone());
            for gone in 0..=size {
                let mut before = Tree::new();
                leaves[..gone].iter().for_each(|leaf| before.push(*leaf));
                let before = Tree::resume(gone as u64, before.peaks().to_vec()).unwrap();
                let rest = Levels::after(&before, leaves[gone..].to_vec());
                assert_eq!((rest.root(), rest.size()), (brute::root(&leaves), size as u64), "{gone} of {size}");
                for index in 0..size as u64 + 1 {
                    let expected = whole.inclusion_proof(index).filter(|_| index >= gone as u64);
                    assert_eq!(rest.inclusion_proof(index), expected, "{index} after {gone} of {size}");
                    let expected = whole.consistency_proof(index).filter(|_| index == 0 || index >= gone as u64);
                    assert_eq!(rest.consistency_proof(index), expected, "{index} after {gone} of {size}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_fails(size in 2_usize..300, index in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(), bit in 0_usize..256, which in any::<prop::sample::Index>()) {
            let leaves = brute::leaves(size);
            let (index, old) = (index.index(size), 1 + old.index(size - 1));
            let root = brute::root(&leaves);
            let flip = |proof: &mut Vec<Digest>| {
                let place = which.index(proof.len());
                let mut bytes = *proof[place].as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                proof[place] = Digest::from_bytes(bytes);
            };
            let mut proof = inclusion_proof(&leaves, index as u64);
            prop_assert!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root));
            flip(&mut proof);
            prop_assert!(!verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root));
            let old_root = brute::root(&leaves[..old]);
            let mut proof = consistency_proof(&leaves, old as u64);
            prop_assert!(verify_consistency(old as u64, &old_root, size as u64, &root, &proof));
            flip(&mut proof);
            prop_assert!(!verify_consistency(old as u64, &old_root, size as u64, &root, &proof));
        }
    }
}
