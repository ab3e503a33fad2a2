/// Answers that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ControlsError {
    /// A file cannot be read.
    #[error("cannot read `{file}`: {source}")]
    Read {
        /// Which.
        file: String,
        /// How it failed.
        source: std::io::Error,
    },
    /// A line is not an answer.
    #[error("`{file}`, line {number}: not an object with `model`, `prompt` and `output`: {what}")]
    Line {
        /// Which file.
        file: String,
        /// Which line, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
    /// A line is not a role.
    #[error("roles, line {number}: {what}")]
    Role {
        /// Which line, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
    /// More answers than are kept.
    #[error("there are more than {most} answers: give fewer prompts, since models and not prompts are what is short")]
    TooMany {
        /// How many are kept.
        most: usize,
    },
    /// A model has a role and no answers.
    #[error("model `{model}` has a role, but no answer in the files")]
    NoAnswers {
        /// Which.
        model: String,
    },
    /// Nobody has a role that is needed.
    #[error("{what}")]
    Nobody {
        /// Whom there is none of.
        what: String,
    },
    /// Too few rare answers of a teacher were there to be shared.
    #[error("{found} rare answers of a teacher stand beside answers of a suspect, at least {needed} are needed")]
    TooFewRare {
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Too few prompts were answered by all.
    #[error("{found} prompts were answered by every model that has a role, at least {needed} are needed")]
    TooFewPrompts {
        /// Prompts that all answered.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
}

impl ControlsError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "answers_unreadable",
            Self::Line { .. } => "answers_malformed",
            Self::Role { .. } => "roles_malformed",
            Self::TooMany { .. } => "too_many_answers",
            Self::NoAnswers { .. } => "no_answers",
            Self::Nobody { .. } => "role_missing",
            Self::TooFewRare { .. } => "too_few_rare_answers",
            Self::TooFewPrompts { .. } => "too_few_prompts",
        }
    }

    /// Is another try of use? It never is: the files say the same again.
    pub const fn retryable(&self) -> bool {
        false
    }
}
