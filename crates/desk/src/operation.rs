//! The table of all operations.

use std::pin::Pin;

use anbiq_ledger::AdminRole;

use crate::Desk;
use crate::dispatch::{Call, Reply};
use crate::operations::{accounts, admin_keys, budgets, grants, house, keys, plans, prices, terms, users};
use crate::problem::Problem;

/// One operation of the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) verb: Verb,
    /// Below `/api/v1`.
    pub(crate) path: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) need: Need,
    pub(crate) reach: Reach,
    /// Is its answer a page of a list?
    pub(crate) lists: bool,
    /// Other parameters of its query, with the schema of each.
    pub(crate) query: &'static [(&'static str, &'static str)],
    /// The schema of its body.
    pub(crate) takes: Option<&'static str>,
    /// The status and the schema of its answer.
    pub(crate) gives: (u16, &'static str),
    pub(crate) handler: Handler,
}

pub(crate) type Handler = fn(Desk, Call) -> Handling;
pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>;

/// The methods that are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

/// What a role must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    /// Accounts, keys, budgets.
    Operate,
    /// Terms, grants, prices, plans.
    Decide,
    /// Admin keys and the configuration.
    Own,
}

impl Need {
    /// Who may do it.
    pub(crate) const fn roles(self) -> &'static [AdminRole] {
        match self {
            Self::Read => &AdminRole::ALL,
            Self::Operate => &[AdminRole::Operator, AdminRole::Owner],
            Self::Decide => &[AdminRole::Steward, AdminRole::Owner],
            Self::Own => &[AdminRole::Owner],
        }
    }
}

/// What a key that is limited to one account may do it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing: it concerns the whole house.
    House,
    /// What is of its account; all else is not there for it.
    Account,
    /// Everything: it is the same for all accounts.
    Everyone,
}

const fn operation(id: &'static str, verb: Verb, path: &'static str, handler: Handler) -> Operation {
    Operation {
        id,
        verb,
        path,
        tag: "",
        summary: "",
        need: Need::Read,
        reach: Reach::Account,
        lists: false,
        query: &[],
        takes: None,
        gives: (200, ""),
        handler,
    }
}

const fn get(id: &'static str, path: &'static str, gives: &'static str, handler: Handler) -> Operation {
    Operation { gives: (200, gives), ..operation(id, Verb::Get, path, handler) }
}

const fn list(id: &'static str, path: &'static str, gives: &'static str, handler: Handler) -> Operation {
    Operation { lists: true, ..get(id, path, gives, handler) }
}

const fn put(id: &'static str, path: &'static str, both: [&'static str; 2], handler: Handler) -> Operation {
    let [takes, gives] = both;
    Operation { takes: Some(takes), gives: (200, gives), ..operation(id, Verb::Put, path, handler) }
}

const fn make(id: &'static str, path: &'static str, both: [&'static str; 2], handler: Handler) -> Operation {
    let [takes, gives] = both;
    Operation { takes: Some(takes), gives: (201, gives), ..operation(id, Verb::Post, path, handler) }
}

/// An act upon something that is there.
const fn act(id: &'static str, path: &'static str, gives: &'static str, handler: Handler) -> Operation {
    Operation { gives: (200, gives), ..operation(id, Verb::Post, path, handler) }
}

const fn delete(id: &'static str, path: &'static str, gives: &'static str, handler: Handler) -> Operation {
    Operation { gives: (200, gives), ..operation(id, Verb::Delete, path, handler) }
}

impl Operation {
    /// What shows the thing that this replaces, where something does.
    pub(crate) fn shown_by(&self) -> Option<&'static Self> {
        OPERATIONS.iter().find(|other| other.verb == Verb::Get && other.path == self.path)
    }

    const fn of(self, tag: &'static str, summary: &'static str) -> Self {
        Self { tag, summary, ..self }
    }

    const fn needs(self, need: Need, reach: Reach) -> Self {
        Self { need, reach, ..self }
    }
}

macro_rules! handled {
    ($module:ident :: $name:ident) => {
        |desk, call| Box::pin($module::$name(desk, call))
    };
}

/// All of them. The routes and the OpenAPI document are made from this table.
#[rustfmt::skip]
pub(crate) static OPERATIONS: &[Operation] = &[
    get("whoAmI", "/me", "Me", handled!(house::me))
        .of("house", "Say which admin key this is, and what it may do")
        .needs(Need::Read, Reach::Everyone),
    get("getOpenApi", "/openapi.json", "Anything", handled!(house::document))
        .of("house", "Give this document")
        .needs(Need::Read, Reach::Everyone),
    get("listProblems", "/problems", "ProblemKinds", handled!(house::problems))
        .of("house", "List every problem that an answer may report")
        .needs(Need::Read, Reach::Everyone),
    get("getProblem", "/problems/{code}", "ProblemKind", handled!(house::problem))
        .of("house", "Say what a problem's code means")
        .needs(Need::Read, Reach::Everyone),
    get("getJournal", "/journal", "JournalState", handled!(house::journal))
        .of("house", "Say how far the journal has come: size, root, last checkpoint")
        .needs(Need::Read, Reach::House),
    get("listModels", "/models", "Models", handled!(house::models))
        .of("house", "List the models that the gateway serves, with their prices and terms")
        .needs(Need::Read, Reach::Everyone),
    act("reload", "/reload", "Reloaded", handled!(house::reload))
        .of("house", "Read the configuration again: plans, prices and terms")
        .needs(Need::Own, Reach::House),

    list("listAccounts", "/accounts", "Accounts", handled!(accounts::list))
        .of("accounts", "List accounts"),
    make("openAccount", "/accounts", ["NewAccount", "Account"], handled!(accounts::open))
        .of("accounts", "Open an account")
        .needs(Need::Operate, Reach::House),
    get("getAccount", "/accounts/{account}", "Account", handled!(accounts::get))
        .of("accounts", "Show an account"),
    put("changeAccount", "/accounts/{account}", ["AccountChange", "Account"], handled!(accounts::change))
        .of("accounts", "Put an account on a plan, and say of which operator it is")
        .needs(Need::Operate, Reach::House),
    act("closeAccount", "/accounts/{account}/close", "Account", handled!(accounts::close))
        .of("accounts", "Close an account: its keys no longer hold")
        .needs(Need::Operate, Reach::House),
    get("getBudget", "/accounts/{account}/budget", "Budget", handled!(accounts::budget))
        .of("accounts", "Show an account's budget, what is spent and what is reserved"),
    put("setBudget", "/accounts/{account}/budget", ["NewBudget", "Budget"], handled!(accounts::set_budget))
        .of("accounts", "Set all the money that an account may spend")
        .needs(Need::Operate, Reach::House),
    list("listBudgetsOfAccount", "/accounts/{account}/budgets", "Budgets", handled!(budgets::of_account))
        .of("accounts", "List the budgets of an account for each window of time, and what became of them"),
    list("listUsers", "/accounts/{account}/users", "Users", handled!(users::list))
        .of("accounts", "List the people who use an account"),
    make("addUser", "/accounts/{account}/users", ["NewUser", "User"], handled!(users::add))
        .of("accounts", "Name somebody who uses an account")
        .needs(Need::Operate, Reach::Account),
    act("removeUser", "/accounts/{account}/users/{user}/remove", "RemovedUser", handled!(users::remove))
        .of("accounts", "Remove a user, and revoke the keys of that user")
        .needs(Need::Operate, Reach::Account),
    get("listAcceptances", "/accounts/{account}/acceptances", "Acceptances", handled!(accounts::acceptances))
        .of("accounts", "List the terms that an account has accepted"),
    make("acceptTerms", "/accounts/{account}/acceptances", ["TermsRef", "Acceptance"], handled!(accounts::accept))
        .of("accounts", "Record that an account accepted terms")
        .needs(Need::Operate, Reach::Account),

    list("listKeys", "/accounts/{account}/keys", "Keys", handled!(keys::list))
        .of("keys", "List the keys of an account"),
    make("issueKey", "/accounts/{account}/keys", ["NewKey", "IssuedKey"], handled!(keys::issue))
        .of("keys", "Issue a key; its secret is shown this once")
        .needs(Need::Operate, Reach::Account),
    get("getKey", "/accounts/{account}/keys/{key}", "Key", handled!(keys::get))
        .of("keys", "Show a key"),
    make("rotateKey", "/accounts/{account}/keys/{key}/rotate", ["Rotation", "IssuedKey"], handled!(keys::rotate))
        .of("keys", "Issue a key in the place of another, which holds on for a while")
        .needs(Need::Operate, Reach::Account),
    act("revokeKey", "/accounts/{account}/keys/{key}/revoke", "Key", handled!(keys::revoke))
        .of("keys", "Revoke a key at once")
        .needs(Need::Operate, Reach::Account),

    Operation { query: &[("holder", "Holder")], ..list("listBudgets", "/budgets", "Budgets", handled!(budgets::list)) }
        .of("budgets", "List all budgets, and what became of them in their present windows")
        .needs(Need::Read, Reach::House),
    put("setMoneyBudget", "/budgets/{holder}/{window}/money", ["NewBudget", "BudgetOfWindow"], handled!(budgets::set_money))
        .of("budgets", "Set the money that a key, an account or an operator may spend in each window of time")
        .needs(Need::Operate, Reach::House),
    delete("removeMoneyBudget", "/budgets/{holder}/{window}/money", "RemovedBudget", handled!(budgets::remove_money))
        .of("budgets", "Take a budget of money away")
        .needs(Need::Operate, Reach::House),
    put("setTokenBudget", "/budgets/{holder}/{window}/tokens", ["NewTokenBudget", "BudgetOfWindow"], handled!(budgets::set_tokens))
        .of("budgets", "Set the tokens that a key, an account or an operator may use in each window of time")
        .needs(Need::Operate, Reach::House),
    delete("removeTokenBudget", "/budgets/{holder}/{window}/tokens", "RemovedBudget", handled!(budgets::remove_tokens))
        .of("budgets", "Take a budget of tokens away")
        .needs(Need::Operate, Reach::House),

    list("listPlans", "/plans", "Plans", handled!(plans::list))
        .of("plans", "List plans")
        .needs(Need::Read, Reach::House),
    get("getPlan", "/plans/{plan}", "Plan", handled!(plans::get))
        .of("plans", "Show a plan")
        .needs(Need::Read, Reach::House),
    put("putPlan", "/plans/{plan}", ["NewPlan", "Plan"], handled!(plans::put))
        .of("plans", "Make a plan, or change it for all accounts that are on it")
        .needs(Need::Decide, Reach::House),

    list("listPrices", "/prices", "PricesOfModels", handled!(prices::list))
        .of("prices", "List the present prices of all models")
        .needs(Need::Read, Reach::Everyone),
    get("getPrices", "/prices/{model}", "PricesOfModel", handled!(prices::get))
        .of("prices", "Show the present prices of a model")
        .needs(Need::Read, Reach::Everyone),
    get("getPriceHistory", "/prices/{model}/history", "PriceHistory", handled!(prices::history))
        .of("prices", "List the prices that a model had, the newest first")
        .needs(Need::Read, Reach::Everyone),
    put("setPrices", "/prices/{model}", ["Prices", "PricesOfModel"], handled!(prices::set))
        .of("prices", "Set the prices of a model from now on")
        .needs(Need::Decide, Reach::House),

    list("listTerms", "/terms", "TermsList", handled!(terms::list))
        .of("terms", "List terms, the last version of each")
        .needs(Need::Read, Reach::Everyone),
    make("issueTerms", "/terms", ["NewTerms", "Terms"], handled!(terms::issue))
        .of("terms", "Issue a version of terms")
        .needs(Need::Decide, Reach::House),
    get("getTerms", "/terms/{terms}", "Terms", handled!(terms::get))
        .of("terms", "Show the last version of terms")
        .needs(Need::Read, Reach::Everyone),
    get("getTermsVersion", "/terms/{terms}/versions/{version}", "Terms", handled!(terms::version))
        .of("terms", "Show one version of terms")
        .needs(Need::Read, Reach::Everyone),

    Operation { query: &[("account", "Id")], ..list("listGrants", "/grants", "Grants", handled!(grants::list)) }
        .of("grants", "List grants"),
    make("giveGrant", "/grants", ["NewGrant", "Grant"], handled!(grants::give))
        .of("grants", "Permit an account to distill a teacher")
        .needs(Need::Decide, Reach::House),
    make("askGrant", "/accounts/{account}/grants", ["GrantRequest", "Grant"], handled!(grants::ask))
        .of("grants", "Ask for a grant, which permits nothing until it is approved")
        .needs(Need::Operate, Reach::Account),
    get("getGrant", "/grants/{grant}", "Grant", handled!(grants::get))
        .of("grants", "Show a grant"),
    Operation { takes: Some("Approval"), ..act("approveGrant", "/grants/{grant}/approve", "Grant", handled!(grants::approve)) }
        .of("grants", "Approve a grant that was asked for, as it was asked for or otherwise")
        .needs(Need::Decide, Reach::House),
    Operation { takes: Some("Refusal"), ..act("refuseGrant", "/grants/{grant}/refuse", "Grant", handled!(grants::refuse)) }
        .of("grants", "Refuse a grant that was asked for, and say why")
        .needs(Need::Decide, Reach::House),
    act("revokeGrant", "/grants/{grant}/revoke", "Grant", handled!(grants::revoke))
        .of("grants", "Take a grant back")
        .needs(Need::Decide, Reach::House),

    list("listAdminKeys", "/admin-keys", "AdminKeys", handled!(admin_keys::list))
        .of("admin keys", "List admin keys")
        .needs(Need::Own, Reach::House),
    make("issueAdminKey", "/admin-keys", ["NewAdminKey", "IssuedAdminKey"], handled!(admin_keys::issue))
        .of("admin keys", "Issue an admin key; its secret is shown this once")
        .needs(Need::Own, Reach::House),
    get("getAdminKey", "/admin-keys/{key}", "AdminKey", handled!(admin_keys::get))
        .of("admin keys", "Show an admin key")
        .needs(Need::Own, Reach::House),
    act("revokeAdminKey", "/admin-keys/{key}/revoke", "AdminKey", handled!(admin_keys::revoke))
        .of("admin keys", "Revoke an admin key at once")
        .needs(Need::Own, Reach::House),
];
