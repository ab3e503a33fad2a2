//! What conditions say about a student.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Conditions, Permission, PriceClass, PriceList, Purpose, Terms, Timestamp};

/// A student as terms see it. What is absent is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Student {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Completion tokens of the teacher that it is trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Will it compete with the teacher?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub competing: Option<bool>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What terms say about a student.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// In one word.
    pub ruling: Ruling,
    /// Why: at least one reason.
    pub reasons: Vec<Reason>,
    /// What whoever trains it must do.
    pub duties: Vec<String>,
}

/// What terms say about a student, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// It may be trained.
    Allowed,
    /// It may be trained with a grant.
    GrantRequired,
    /// It may not.
    Forbidden,
    /// They do not say, or too little is known of the student.
    Unknown,
}

/// Why terms say what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable name, such as `student_too_large`.
    pub code: String,
    /// In words.
    pub words: String,
}

/// A condition that a student breaks. Written after whose condition it is: "the terms allow at most ...".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Stable name, such as `student_too_large`.
    pub code: &'static str,
    /// What is allowed, and what the student is instead.
    pub allowed: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.allowed)
    }
}

impl Terms {
    /// What they say at the moment `at` about a student whose maker has no grant.
    pub fn judge(&self, student: &Student, at: Timestamp) -> Judgement {
        let conditions = &self.conditions;
        let broken = conditions.broken_by(student);
        let open = conditions.open_about(student);
        let one = |code: &str, words: &str| vec![Reason { code: code.to_owned(), words: words.to_owned() }];
        let (ruling, reasons) = match self.distillation {
            _ if self.expires.is_some_and(|end| at >= end) => {
                (Ruling::Unknown, one("terms_expired", "the terms no longer hold, and no later ones are known"))
            }
            Permission::Forbidden => {
                (Ruling::Forbidden, one("distillation_forbidden", "the terms forbid distillation"))
            }
            Permission::Unknown => (Ruling::Unknown, one("terms_unknown", "the terms do not say, or nobody read them")),
            _ if !broken.is_empty() => (Ruling::Forbidden, broken.iter().map(Reason::of_broken).collect()),
            _ if !open.is_empty() => (Ruling::Unknown, open),
            Permission::GrantRequired => (Ruling::GrantRequired, one("grant_required", "the terms require a grant")),
            Permission::Conditions => {
                (Ruling::Allowed, one("conditions_kept", "the terms allow it under conditions, and it keeps them"))
            }
            Permission::Allowed => (Ruling::Allowed, one("distillation_allowed", "the terms allow it")),
        };
        let duties = if ruling == Ruling::Forbidden { Vec::new() } else { conditions.duties() };
        Judgement { ruling, reasons, duties }
    }
}

impl Reason {
    fn of_broken(broken: &Broken) -> Self {
        Self { code: broken.code.to_owned(), words: format!("the terms allow {broken}") }
    }
}

impl Conditions {
    /// The largest student, in parameters: the smaller of the absolute and the relative limit, as far as they are known.
    pub fn largest_student(&self) -> Option<u64> {
        let share = |percent: u32| {
            let parameters = u128::from(self.teacher_parameters?) * u128::from(percent) / 100;
            Some(u64::try_from(parameters).unwrap_or(u64::MAX))
        };
        [self.max_student_parameters, self.max_student_percent.and_then(share)].into_iter().flatten().min()
    }

    /// Those that `student` breaks, as far as it is known.
    pub fn broken_by(&self, student: &Student) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut add = |code, allowed| broken.push(Broken { code, allowed });
        if let (Some(most), Some(has)) = (self.largest_student(), student.parameters)
            && has > most
        {
            add("student_too_large", format!("at most {most} parameters; this student has {has}"));
        }
        if let (Some(most), Some(takes)) = (self.max_output_tokens, student.output_tokens)
            && takes > most
        {
            add("volume_exceeded", format!("at most {most} completion tokens; this student takes {takes}"));
        }
        if !self.competing_use && student.competing == Some(true) {
            add("competing_use", "no student that competes with the teacher; this one does".to_owned());
        }
        if let Some(purpose) = student.purpose
            && !self.purposes.is_empty()
            && !self.purposes.contains(&purpose)
        {
            let allowed: Vec<_> = self.purposes.iter().map(|purpose| purpose.as_str()).collect();
            add(
                "purpose_not_allowed",
                format!("only {}; this student is for {}", allowed.join(", "), purpose.as_str()),
            );
        }
        if let (Some(prefix), Some(name)) = (&self.name_prefix, &student.name)
            && !name.starts_with(prefix.as_str())
        {
            add("name_not_allowed", format!("only names that begin with `{prefix}`; this student is called `{name}`"));
        }
        broken
    }

    /// Those that cannot be applied, since too little is known of `student` or of the teacher.
    pub fn open_about(&self, student: &Student) -> Vec<Reason> {
        let limits_size = self.max_student_parameters.is_some() || self.max_student_percent.is_some();
        let questions = [
            (
                limits_size && student.parameters.is_none(),
                "size_unknown",
                "they limit the student's size, which is not known",
            ),
            (
                self.max_student_percent.is_some() && self.teacher_parameters.is_none(),
                "teacher_size_unknown",
                "they limit the student's size by the teacher's, which is not known",
            ),
            (
                self.max_output_tokens.is_some() && student.output_tokens.is_none(),
                "volume_unknown",
                "they limit the completion tokens, and how many there will be is not known",
            ),
            (
                !self.competing_use && student.competing.is_none(),
                "competition_unknown",
                "they allow no student that competes with the teacher, and whether it will is not known",
            ),
            (
                !self.purposes.is_empty() && student.purpose.is_none(),
                "purpose_unknown",
                "they allow some purposes only, and what the student is for is not known",
            ),
        ];
        let asked = questions.into_iter().filter(|(open, ..)| *open);
        asked.map(|(_, code, words)| Reason { code: code.to_owned(), words: words.to_owned() }).collect()
    }

    /// Those that are wider than `terms` have them; empty where a grant of these conditions stays within the terms.
    pub fn beyond(&self, terms: &Self) -> Vec<Reason> {
        fn wider<T: PartialOrd>(own: Option<T>, terms: Option<T>) -> bool {
            terms.is_some_and(|terms| own.is_none_or(|own| own > terms))
        }
        let beyond_purposes = !terms.purposes.is_empty()
            && (self.purposes.is_empty() || self.purposes.iter().any(|purpose| !terms.purposes.contains(purpose)));
        let relative = wider(self.max_student_percent, terms.max_student_percent)
            && wider(self.largest_student(), terms.largest_student());
        let found = [
            (
                wider(self.largest_student(), terms.max_student_parameters) || relative,
                "student_too_large",
                "a larger student than the terms allow",
            ),
            (
                wider(self.max_output_tokens, terms.max_output_tokens),
                "volume_exceeded",
                "more completion tokens than the terms allow",
            ),
            (self.competing_use && !terms.competing_use, "competing_use", "a student that competes with the teacher"),
            (beyond_purposes, "purpose_not_allowed", "purposes that the terms do not name"),
            (
                terms.name_prefix.is_some() && self.name_prefix != terms.name_prefix,
                "name_not_allowed",
                "a name that does not begin as the terms demand",
            ),
            (
                terms.licence.is_some() && self.licence != terms.licence,
                "licence_not_kept",
                "another licence than the terms hand down",
            ),
            (
                terms.attribution.is_some() && self.attribution != terms.attribution,
                "attribution_not_kept",
                "another attribution than the terms demand",
            ),
            (
                terms.notices.iter().any(|notice| !self.notices.contains(notice)),
                "notices_not_kept",
                "fewer notices than the terms demand",
            ),
        ];
        let found = found.into_iter().filter(|(beyond, ..)| *beyond);
        found.map(|(_, code, words)| Reason { code: code.to_owned(), words: words.to_owned() }).collect()
    }

    /// What whoever trains a student under them must do, in words.
    pub fn duties(&self) -> Vec<String> {
        let mut duties = Vec::new();
        duties.extend(self.name_prefix.iter().map(|prefix| format!("the student's name begins with `{prefix}`")));
        duties.extend(self.attribution.iter().map(|attribution| format!("the student's card says: {attribution}")));
        duties.extend(self.notices.iter().map(|notice| format!("the student comes with: {notice}")));
        duties.extend(self.licence.iter().map(|licence| format!("the student is under the same licence: {licence}")));
        duties
    }

    /// The prices that hold under them, of a teacher with the prices `list`: a price of their own stands in the place of
    /// that of distillation.
    pub fn price(&self, list: PriceList) -> (PriceClass, PriceList) {
        match self.output_price {
            Some(own) => (PriceClass::Distillation, PriceList { distillation_output: Some(own), ..list }),
            None => (self.price_class.unwrap_or(PriceClass::Distillation), list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TermsId;

    const NOW: Timestamp = Timestamp::from_milliseconds(1_000);

    fn terms(distillation: Permission, conditions: Conditions) -> Terms {
        Terms { conditions, ..Terms::new(TermsId::new("t").unwrap(), 1, "big", distillation, "...") }
    }

    fn narrow() -> Conditions {
        Conditions {
            max_student_parameters: Some(500),
            max_output_tokens: Some(70),
            purposes: vec![Purpose::Research],
            name_prefix: Some("Big".to_owned()),
            ..Conditions::default()
        }
    }

    fn student() -> Student {
        Student {
            parameters: Some(500),
            output_tokens: Some(70),
            competing: Some(false),
            purpose: Some(Purpose::Research),
            name: Some("Big baby".to_owned()),
        }
    }

    #[test]
    fn terms_are_applied_by_machine() {
        use Permission::{Allowed, Conditions as Under, Forbidden, GrantRequired, Unknown};
        let wide = Conditions { competing_use: true, ..Conditions::default() };
        let nobody = Student::default;
        let (larger, more) =
            (Student { parameters: Some(501), ..student() }, Student { output_tokens: Some(71), ..student() });
        let rival = Student { competing: Some(true), ..student() };
        let product = Student { purpose: Some(Purpose::Product), ..student() };
        let renamed = Student { name: Some("Small".to_owned()), ..student() };
        let nameless = Student { name: None, ..student() };
        let relative = Conditions { max_student_percent: Some(10), ..wide.clone() };
        let told = Conditions { teacher_parameters: Some(5_009), ..relative.clone() };
        let cases = [
            (terms(Allowed, wide.clone()), nobody(), Ruling::Allowed, vec!["distillation_allowed"]),
            (terms(Under, narrow()), student(), Ruling::Allowed, vec!["conditions_kept"]),
            (terms(Under, narrow()), nameless, Ruling::Allowed, vec!["conditions_kept"]),
            (terms(GrantRequired, narrow()), student(), Ruling::GrantRequired, vec!["grant_required"]),
            (terms(Under, narrow()), larger, Ruling::Forbidden, vec!["student_too_large"]),
            (terms(Under, narrow()), more, Ruling::Forbidden, vec!["volume_exceeded"]),
            (terms(Under, narrow()), rival, Ruling::Forbidden, vec!["competing_use"]),
            (terms(GrantRequired, narrow()), product, Ruling::Forbidden, vec!["purpose_not_allowed"]),
            (terms(Under, narrow()), renamed, Ruling::Forbidden, vec!["name_not_allowed"]),
            (
                terms(Under, narrow()),
                nobody(),
                Ruling::Unknown,
                vec!["size_unknown", "volume_unknown", "competition_unknown", "purpose_unknown"],
            ),
            (terms(Under, relative), student(), Ruling::Unknown, vec!["teacher_size_unknown"]),
            (terms(Under, told.clone()), student(), Ruling::Allowed, vec!["conditions_kept"]),
            (
                terms(Under, told),
                Student { parameters: Some(501), ..nobody() },
                Ruling::Forbidden,
                vec!["student_too_large"],
            ),
            (terms(Forbidden, wide.clone()), student(), Ruling::Forbidden, vec!["distillation_forbidden"]),
            (terms(Unknown, wide.clone()), student(), Ruling::Unknown, vec!["terms_unknown"]),
            (Terms { expires: Some(NOW), ..terms(Allowed, wide) }, student(), Ruling::Unknown, vec!["terms_expired"]),
        ];
        for (number, (terms, student, ruling, reasons)) in cases.into_iter().enumerate() {
            let judged = terms.judge(&student, NOW);
            let codes: Vec<&str> = judged.reasons.iter().map(|reason| reason.code.as_str()).collect();
            assert_eq!((judged.ruling, codes), (ruling, reasons), "case {number}");
            assert_eq!(judged.duties.is_empty(), ruling == Ruling::Forbidden || terms.conditions.name_prefix.is_none());
        }
    }

    #[test]
    fn a_grant_is_measured_against_its_terms() {
        let codes = |own: &Conditions, terms: &Conditions| {
            own.beyond(terms).into_iter().map(|reason| reason.code).collect::<Vec<_>>()
        };
        let none = Conditions::default();
        assert_eq!(codes(&narrow(), &narrow()), [""; 0]);
        assert_eq!(codes(&narrow(), &none), [""; 0], "narrower");
        assert_eq!(
            codes(&none, &narrow()),
            ["student_too_large", "volume_exceeded", "purpose_not_allowed", "name_not_allowed"]
        );
        let strict = Conditions {
            attribution: Some("Built with big".to_owned()),
            licence: Some("Big Licence".to_owned()),
            notices: vec!["NOTICE".to_owned()],
            max_student_percent: Some(10),
            teacher_parameters: Some(1_000),
            ..none
        };
        let own = Conditions { competing_use: true, max_student_parameters: Some(100), ..Conditions::default() };
        assert_eq!(
            codes(&own, &strict),
            ["competing_use", "licence_not_kept", "attribution_not_kept", "notices_not_kept"]
        );
        let larger = Conditions { max_student_parameters: Some(101), max_student_percent: None, ..strict.clone() };
        assert_eq!(codes(&larger, &strict), ["student_too_large"]);
    }
}
