//! What the case must come out as. The demonstration fails where it does not.

use std::collections::BTreeSet;
use std::path::Path;

use anbiq_domain::{AccountId, OperatorId};
use anbiq_evidence::Broken;
use anbiq_lab::world::{Group, World};
use anbiq_trace::{Report as Trace, Strength};
use anbiq_watch::{Report as Findings, Standing};
use anyhow::{Context, bail, ensure};

/// Least share of the harvesting accounts that the campaign must hold.
const FOUND: f64 = 0.9;

pub(super) fn check(world: &World, findings: &Findings, verdicts: &[Trace]) -> anyhow::Result<()> {
    let campaign = one_campaign(world, findings)?;
    let licensee = within_grant(world, findings)?;
    for verdict in verdicts {
        let (strength, points_at) = (verdict.verdict.strength, &verdict.verdict.points_at);
        match verdict.protocol.suspect.as_str() {
            "suspect" => {
                ensure!(strength == Strength::Established, "the suspect is {}", strength.in_words());
                ensure!(
                    points_at == std::slice::from_ref(&campaign),
                    "the suspect points at {points_at:?}, not at {campaign}"
                );
            }
            "licensed" => {
                ensure!(
                    points_at == std::slice::from_ref(&licensee),
                    "the licensed student points at {points_at:?}, not at {licensee}"
                );
            }
            // The coins are secret, so they are drawn anew in every run, and one in twenty makes an innocent student
            // *moderate*: that is the error rate that the word stands for. *Strong* is one in a thousand.
            _ => ensure!(strength < Strength::Strong, "the innocent student is {}", strength.in_words()),
        }
    }
    Ok(())
}

/// Changes one byte of a copy of the dossier, and says how that is found.
pub(super) fn broken_by_one_byte(dossier: &Path) -> anyhow::Result<Broken> {
    const FILE: &str = "records.jsonl";
    let copy = dossier.with_extension("changed");
    std::fs::create_dir_all(&copy)?;
    for item in std::fs::read_dir(dossier)? {
        let item = item?;
        std::fs::copy(item.path(), copy.join(item.file_name()))?;
    }
    let mut bytes = std::fs::read(copy.join(FILE))?;
    let middle = bytes.len() / 2;
    let row = bytes[..middle].iter().filter(|&&byte| byte == b'\n').count() + 1;
    bytes[middle] ^= 1;
    std::fs::write(copy.join(FILE), bytes)?;
    let checked = anbiq_verify::check(&copy, None);
    std::fs::remove_dir_all(&copy)?;
    let Err(broken) = checked else { bail!("a changed byte was not found") };
    ensure!(broken.file == FILE && broken.row == Some(row), "a byte of row {row} was changed, and found as {broken}");
    Ok(broken)
}

/// There is one campaign; it holds nearly all harvesting accounts and nobody else.
fn one_campaign(world: &World, findings: &Findings) -> anyhow::Result<OperatorId> {
    let mut campaigns = findings.campaigns();
    let (operator, _) = campaigns.next().context("no campaign was found")?;
    ensure!(campaigns.next().is_none(), "more than one campaign was found");
    let harvesting: BTreeSet<&AccountId> = world.group(Group::Operator).map(|account| &account.id).collect();
    let accused: BTreeSet<&AccountId> = operator.accounts.iter().map(|member| &member.account).collect();
    let wrongly: Vec<_> = accused.difference(&harvesting).collect();
    ensure!(wrongly.is_empty(), "honest accounts were accused: {wrongly:?}");
    let share = accused.len() as f64 / harvesting.len() as f64;
    ensure!(share >= FOUND, "only {} of {} harvesting accounts were found", accused.len(), harvesting.len());
    Ok(operator.id.clone())
}

/// The licensed distiller stands within its grant.
fn within_grant(world: &World, findings: &Findings) -> anyhow::Result<OperatorId> {
    let licensee = world.group(Group::Licensee).next().context("the world has no licensee")?;
    let operator = findings
        .operators
        .iter()
        .find(|operator| operator.accounts.iter().any(|member| member.account == licensee.id))
        .context("the licensee is in no operator")?;
    ensure!(
        matches!(operator.standing, Standing::WithinGrant { .. }),
        "the licensee stands as {:?}",
        operator.standing
    );
    Ok(operator.id.clone())
}
