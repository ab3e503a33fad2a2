//! The gate: do the teacher's terms permit this student?

use std::collections::BTreeSet;

use anbiq_domain::{
    AccountId, Conditions, Digest, Grant, Permission, PriceClass, PriceList, Student, Terms, TermsRef, Timestamp,
};
use serde::Serialize;

/// What the gate needs to know about a student.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its size.
    pub parameters: u64,
    /// Completion tokens of the teacher that it is trained on.
    pub tokens: u64,
    /// When it is trained.
    pub now: Timestamp,
}

/// What the user brings.
#[derive(Debug, Clone, Default)]
pub struct Papers {
    /// The teacher's terms, where they are known.
    pub terms: Option<Terms>,
    /// Whose student it is.
    pub account: Option<AccountId>,
    /// A grant.
    pub grant: Option<Grant>,
    /// The hash of a written permission.
    pub permission: Option<Digest>,
    /// By what right, in words.
    pub basis: Option<String>,
}

/// By what right a student is trained. It is written into the card and the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Clearance {
    /// Do the terms permit it, as far as they are known?
    pub right: Right,
    /// The terms, where they are known.
    pub terms: Option<TermsRef>,
    /// The digest of their words.
    pub terms_digest: Option<Digest>,
    /// What was said or shown.
    pub basis: String,
    /// The hash of a written permission.
    pub permission: Option<Digest>,
    /// Which of the terms it breaks; empty unless it is not permitted.
    pub breaches: Vec<String>,
    /// What the card must say.
    pub attribution: Vec<String>,
}

/// Whether the terms permit a student.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// No teacher is learnt from.
    NoTeacher,
    /// They do.
    Permitted,
    /// They do not, or nobody read them; the user says by what right all the same.
    Stated,
    /// They do not, and the user says so.
    NotPermitted,
}

/// The terms do not permit this student.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the terms of `{teacher}` do not permit this student:{}\nhint: {hint}", list(.breaches))]
pub struct Refusal {
    /// Whose terms.
    pub teacher: String,
    /// Every reason.
    pub breaches: Vec<String>,
    /// What to do.
    pub hint: &'static str,
    code: &'static str,
}

impl Refusal {
    /// A stable name of the first reason, such as `grant_expired`.
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

/// What begins the statement of one who knows that it is not permitted.
const AGAINST: &str = "none:";

impl Clearance {
    /// Of a student that learns from no teacher.
    pub fn no_teacher() -> Self {
        Self {
            right: Right::NoTeacher,
            terms: None,
            terms_digest: None,
            basis: "trained on no teacher's answers".to_owned(),
            permission: None,
            breaches: Vec::new(),
            attribution: Vec::new(),
        }
    }

    /// Which of the teacher's prices apply, where its list is `list`: those of the grant, where it is trained under one.
    pub fn prices(&self, papers: &Papers, list: PriceList) -> (PriceClass, PriceList) {
        match &papers.grant {
            Some(grant) if self.right == Right::Permitted => grant.conditions.price(list),
            _ => (PriceClass::Standard, list),
        }
    }
}

/// Judges a student of `teacher`.
///
/// # Errors
///
/// The terms do not permit it, and the user does not say that it is done against them.
pub fn judge(teacher: &str, papers: &Papers, facts: Facts<'_>) -> Result<Clearance, Refusal> {
    let terms = papers.terms.as_ref();
    let mut breaches = breaches(teacher, papers, facts);
    let attribution = [terms.map(|terms| &terms.conditions), papers.grant.as_ref().map(|grant| &grant.conditions)];
    let mut attribution: Vec<String> = attribution.into_iter().flatten().flat_map(card).collect();
    let mut said = BTreeSet::new();
    attribution.retain(|line| said.insert(line.clone()));
    let against = papers.basis.as_deref().is_some_and(|basis| basis.trim_start().starts_with(AGAINST));
    if !breaches.is_empty() && !against {
        return Err(refusal(teacher, breaches));
    }
    let stated = terms.is_none_or(|terms| permission(terms, papers, facts.now) == Permission::Unknown);
    let right = match (against, stated) {
        (true, _) => Right::NotPermitted,
        (false, true) => Right::Stated,
        (false, false) => Right::Permitted,
    };
    if against && breaches.is_empty() {
        breaches.push(Breach { code: "against_terms", words: "the user says that it is not permitted".to_owned() });
    }
    Ok(Clearance {
        right,
        terms: terms.map(Terms::reference),
        terms_digest: terms.map(Terms::text_digest),
        basis: basis(papers, right),
        permission: papers.permission,
        breaches: breaches.into_iter().map(|breach| breach.words).collect(),
        attribution,
    })
}

/// What the terms say at the moment `now`. A grant that is shown was given while they held.
fn permission(terms: &Terms, papers: &Papers, now: Timestamp) -> Permission {
    if papers.grant.is_some() { terms.distillation } else { terms.permission(now) }
}

/// What the card must say under `conditions`.
fn card(conditions: &Conditions) -> Vec<String> {
    let notices = conditions.notices.iter().map(|notice| format!("Comes with {notice}."));
    let licence = conditions.licence.iter().map(|licence| format!("Under the licence {licence}."));
    conditions.attribution.iter().cloned().chain(notices).chain(licence).collect()
}

struct Breach {
    code: &'static str,
    words: String,
}

fn breaches(teacher: &str, papers: &Papers, facts: Facts<'_>) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut add = |code, words| found.push(Breach { code, words });
    let Some(terms) = &papers.terms else {
        if papers.basis.is_none() {
            add("terms_unknown", "its terms are not known, and no `basis` is stated".to_owned());
        }
        return found;
    };
    if terms.teacher != teacher {
        add("terms_of_another", format!("these are the terms of `{}`", terms.teacher));
    }
    match permission(terms, papers, facts.now) {
        Permission::Allowed | Permission::Conditions => {
            conditions(&terms.conditions, "the terms allow", facts, &mut add);
        }
        Permission::Unknown => {
            if papers.basis.is_none() {
                add("terms_unknown", "its terms do not say, and no `basis` is stated".to_owned());
            }
            conditions(&terms.conditions, "the terms allow", facts, &mut add);
        }
        Permission::Forbidden => {
            if papers.permission.is_none() {
                add("distillation_forbidden", "they forbid distillation, and no written `permission` is shown".into());
            }
        }
        Permission::GrantRequired => match &papers.grant {
            None => add("grant_required", "they require a grant, and none is shown".to_owned()),
            Some(grant) => grant_breaches(grant, terms, papers.account.as_ref(), facts, &mut add),
        },
    }
    found
}

fn grant_breaches(
    grant: &Grant,
    terms: &Terms,
    account: Option<&AccountId>,
    facts: Facts<'_>,
    add: &mut impl FnMut(&'static str, String),
) {
    if grant.terms.id != terms.id {
        add("grant_of_other_terms", format!("grant `{}` rests on the terms `{}`", grant.id, grant.terms.id));
    }
    if account != Some(&grant.account) {
        add("grant_of_another", format!("grant `{}` was given to the account `{}`", grant.id, grant.account));
    }
    if grant.expires.is_some_and(|end| facts.now >= end) {
        add("grant_expired", format!("grant `{}` has expired", grant.id));
    }
    conditions(&grant.conditions, "the grant allows", facts, add);
}

fn conditions(conditions: &Conditions, who_allows: &str, facts: Facts<'_>, add: &mut impl FnMut(&'static str, String)) {
    let student = Student {
        name: Some(facts.name.to_owned()),
        parameters: Some(facts.parameters),
        output_tokens: Some(facts.tokens),
        ..Student::default()
    };
    for broken in conditions.broken_by(&student) {
        add(broken.code, format!("{who_allows} {broken}"));
    }
}

fn basis(papers: &Papers, right: Right) -> String {
    let stated = papers.basis.clone().unwrap_or_default();
    match (right, &papers.grant, &papers.permission) {
        (Right::Permitted, Some(grant), _) => {
            format!("grant `{}` to `{}` for: {}", grant.id, grant.account, grant.purpose)
        }
        (Right::Permitted, None, Some(_)) => format!("written permission {stated}").trim_end().to_owned(),
        (Right::Permitted, None, None) => "the terms allow it".to_owned(),
        _ => stated,
    }
}

fn refusal(teacher: &str, breaches: Vec<Breach>) -> Refusal {
    let code = breaches.first().map_or("terms_refused", |breach| breach.code);
    let hint = match code {
        "terms_unknown" => "read the terms, and state in `basis` by what right the student is trained",
        "grant_required" | "grant_expired" | "grant_of_another" | "grant_of_other_terms" => {
            "ask the provider for a grant, and name its file in `grant`"
        }
        "distillation_forbidden" => "ask the provider for a written permission, and name its file in `permission`",
        "name_not_allowed" => "give the student a name that begins as the terms demand",
        "student_too_large" => "make the student smaller, or ask the provider for a wider grant",
        "volume_exceeded" => "use fewer answers, or ask the provider for a wider grant",
        _ => "name the terms of this teacher in `terms`",
    };
    Refusal {
        teacher: teacher.to_owned(),
        breaches: breaches.into_iter().map(|breach| breach.words).collect(),
        hint,
        code,
    }
}

fn list(breaches: &[String]) -> String {
    breaches.iter().map(|breach| format!("\n  - {breach}")).collect()
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{GrantId, Money, TermsId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_milliseconds(1_000);
    const FACTS: Facts<'_> = Facts { name: "small", parameters: 500, tokens: 70, now: NOW };

    fn terms(distillation: Permission, conditions: Conditions) -> Terms {
        let id = TermsId::new("t").unwrap();
        Terms { conditions, ..Terms::new(id, 1, "big", distillation, "...") }
    }

    fn limits(parameters: u64, tokens: u64) -> Conditions {
        Conditions {
            max_student_parameters: Some(parameters),
            max_output_tokens: Some(tokens),
            attribution: Some("Built with big".to_owned()),
            ..Conditions::default()
        }
    }

    fn grant(conditions: Conditions, expires: Option<i64>) -> Grant {
        Grant {
            id: GrantId::new("g").unwrap(),
            account: AccountId::new("acme").unwrap(),
            terms: terms(Permission::GrantRequired, Conditions::default()).reference(),
            purpose: "a shop".to_owned(),
            conditions,
            given: Timestamp::from_milliseconds(0),
            expires: expires.map(Timestamp::from_milliseconds),
        }
    }

    #[test]
    fn the_gate_opens_for_those_who_may() {
        use Permission::{Allowed, Forbidden, GrantRequired, Unknown};
        let none = Conditions::default;
        let acme = AccountId::new("acme").unwrap();
        let permission = Some(Digest::of(b"dear customer"));
        let narrow = || Papers {
            terms: Some(terms(GrantRequired, limits(1, 1))),
            account: Some(acme.clone()),
            ..Papers::default()
        };
        let with = |grant: Grant| Papers { grant: Some(grant), ..narrow() };
        let of = |permission, conditions| Papers { terms: Some(terms(permission, conditions)), ..Papers::default() };
        let saying = |papers: Papers, basis: &str| Papers { basis: Some(basis.to_owned()), ..papers };
        let named = |prefix: &str| Conditions { name_prefix: Some(prefix.to_owned()), ..none() };
        let ended = |papers: Papers| {
            let terms = papers.terms.map(|terms| Terms { expires: Some(NOW), ..terms });
            Papers { terms, ..papers }
        };
        let other = Papers { account: Some(AccountId::new("rival").unwrap()), ..with(grant(none(), None)) };
        let cases: Vec<(Papers, Result<Right, &str>)> = vec![
            (of(Allowed, none()), Ok(Right::Permitted)),
            (of(Allowed, limits(500, 70)), Ok(Right::Permitted)),
            (of(Allowed, limits(499, 70)), Err("student_too_large")),
            (of(Allowed, limits(500, 69)), Err("volume_exceeded")),
            (narrow(), Err("grant_required")),
            (with(grant(none(), None)), Ok(Right::Permitted)),
            (with(grant(limits(500, 70), Some(1_001))), Ok(Right::Permitted)),
            (with(grant(limits(499, 70), None)), Err("student_too_large")),
            (with(grant(limits(500, 69), None)), Err("volume_exceeded")),
            (with(grant(none(), Some(1_000))), Err("grant_expired")),
            (other, Err("grant_of_another")),
            (of(Forbidden, none()), Err("distillation_forbidden")),
            (saying(of(Forbidden, none()), "we are a university"), Err("distillation_forbidden")),
            (Papers { permission, ..of(Forbidden, none()) }, Ok(Right::Permitted)),
            (of(Unknown, none()), Err("terms_unknown")),
            (saying(of(Unknown, none()), "asked by mail"), Ok(Right::Stated)),
            (Papers::default(), Err("terms_unknown")),
            (saying(Papers::default(), "own model"), Ok(Right::Stated)),
            (of(Permission::Conditions, named("small")), Ok(Right::Permitted)),
            (of(Permission::Conditions, named("big")), Err("name_not_allowed")),
            (ended(of(Allowed, none())), Err("terms_unknown")),
            (saying(ended(of(Allowed, none())), "asked by mail"), Ok(Right::Stated)),
            (ended(with(grant(none(), None))), Ok(Right::Permitted)),
            (saying(narrow(), "none: red-team exercise"), Ok(Right::NotPermitted)),
            (saying(of(Forbidden, none()), "none: red-team exercise"), Ok(Right::NotPermitted)),
        ];
        for (number, (papers, expected)) in cases.into_iter().enumerate() {
            let judged = judge("big", &papers, FACTS);
            assert_eq!(
                judged.as_ref().map(|clearance| clearance.right).map_err(Refusal::code),
                expected,
                "case {number}"
            );
            if let Ok(clearance) = judged {
                assert_eq!(clearance.right == Right::NotPermitted, !clearance.breaches.is_empty(), "case {number}");
            }
        }
        assert_eq!(judge("small", &of(Allowed, none()), FACTS).unwrap_err().code(), "terms_of_another");
    }

    #[test]
    fn a_refusal_says_everything_at_once() {
        let papers = Papers {
            terms: Some(terms(Permission::GrantRequired, Conditions::default())),
            grant: Some(grant(limits(1, 2), Some(5))),
            ..Papers::default()
        };
        insta::assert_snapshot!(judge("big", &papers, FACTS).unwrap_err(), @"
        the terms of `big` do not permit this student:
          - grant `g` was given to the account `acme`
          - grant `g` has expired
          - the grant allows at most 1 parameters; this student has 500
          - the grant allows at most 2 completion tokens; this student takes 70
        hint: ask the provider for a grant, and name its file in `grant`
        ");
    }

    #[test]
    fn a_grant_sets_the_price_and_terms_the_card() {
        let duties = Conditions {
            attribution: Some("Built with big".to_owned()),
            notices: vec!["NOTICE".to_owned()],
            licence: Some("Big 1.0".to_owned()),
            ..Conditions::default()
        };
        let own = Conditions { output_price: Some(Money::from_dollars(7)), ..duties.clone() };
        let papers = Papers {
            terms: Some(terms(Permission::GrantRequired, duties)),
            account: Some(AccountId::new("acme").unwrap()),
            grant: Some(grant(own, None)),
            ..Papers::default()
        };
        let clearance = judge("big", &papers, FACTS).unwrap();
        assert_eq!(clearance.attribution, ["Built with big", "Comes with NOTICE.", "Under the licence Big 1.0."]);
        let list = PriceList { output: Money::from_dollars(2), ..PriceList::default() };
        let (class, prices) = clearance.prices(&papers, list);
        let usage = anbiq_domain::Usage { completion_tokens: 1_000_000, ..Default::default() };
        assert_eq!(prices.cost(usage, class), Money::from_dollars(7));
    }

    #[test]
    fn what_is_against_the_terms_says_so() {
        let papers = Papers {
            terms: Some(terms(Permission::Forbidden, limits(1, 1))),
            basis: Some("none: red-team exercise".to_owned()),
            ..Papers::default()
        };
        let clearance = judge("big", &papers, FACTS).unwrap();
        assert_eq!(clearance.basis, "none: red-team exercise");
        assert_eq!(clearance.breaches, ["they forbid distillation, and no written `permission` is shown"]);
        assert_eq!(clearance.attribution, ["Built with big"]);
        assert_eq!(clearance.prices(&papers, PriceList::default()).0, PriceClass::Standard);
    }
}
