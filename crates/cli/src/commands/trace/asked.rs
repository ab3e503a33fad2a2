//! The models of a trace: folders, or names at servers, and in which way they are asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_domain::Digest;
use anbiq_lm::Nearness;
use anbiq_model::Model;
use anbiq_model::template::ChatTemplate;
use anbiq_trace::endpoint::Endpoint;
use anbiq_trace::plan::{ModelRole, PlannedFile, PlannedModel};
use anbiq_trace::probe::{GoingOn, Probe};
use anbiq_trace::{AtServer, By, Config, Statistic};
use anbiq_upstream::Form;
use anyhow::{Context, ensure};

use super::planned::files_of;
use crate::args::{Asking, Parts, Remote};
use crate::site::{local, open_local, open_upstream, read_digested};

/// What a model is asked about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// How likely it finds it.
    Likelihood,
    /// How near it comes to the teacher along it.
    Nearness,
    /// How it goes on, at so many places of a text.
    Probe(usize),
}

impl How {
    pub(super) const fn new(nearness: bool, probe: bool, places: usize) -> Self {
        match (nearness, probe) {
            (true, _) => Self::Nearness,
            (_, true) => Self::Probe(places),
            _ => Self::Likelihood,
        }
    }

    /// What a plan names.
    pub(super) fn planned(statistic: Statistic, places: Option<usize>) -> Self {
        Self::new(statistic == Statistic::Nearness, statistic == Statistic::Probe, places.unwrap_or(1))
    }

    pub(super) const fn statistic(self) -> Statistic {
        match self {
            Self::Likelihood => Statistic::Residual,
            Self::Nearness => Statistic::Nearness,
            Self::Probe(_) => Statistic::Probe,
        }
    }

    pub(super) const fn places(self) -> Option<usize> {
        if let Self::Probe(places) = self { Some(places) } else { None }
    }
}

/// In which way models are asked for the twins of a journal.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) how: How,
    pub(super) by: Vec<By>,
    endpoints: Vec<PathBuf>,
}

impl Asked {
    pub(super) fn of(args: &Asking) -> Self {
        let by = |parts: &Parts| match parts {
            Parts::Model => By::Model,
            Parts::Day => By::Day,
            Parts::Month => By::Month,
        };
        let how = How::new(args.nearness, args.probe, args.places.into());
        Self { how, by: args.by.iter().map(by).collect(), endpoints: args.endpoint.clone() }
    }

    /// The settings of a trace of `models`.
    pub(super) fn config(&self, models: &[&Named]) -> anyhow::Result<Config> {
        let mut seen = Vec::new();
        for path in &self.endpoints {
            let (digest, endpoint): (Digest, Endpoint) = read_digested(path)?;
            let of = models.iter().find(|model| model.server.is_some() && model.name == endpoint.endpoint);
            let of = of.with_context(|| {
                format!("`{}` is about `{}`, which is behind no URL here", path.display(), endpoint.endpoint)
            })?;
            seen.push(AtServer::compared(&of.name, digest, &endpoint)?);
        }
        let at_server = |model: &&&Named| {
            let known = seen.iter().find(|server| server.model == model.name).cloned();
            known.unwrap_or_else(|| AtServer { model: model.name.clone(), compared: None })
        };
        let servers = models.iter().filter(|model| model.server.is_some());
        let mut servers: Vec<AtServer> = servers.map(|model| at_server(&model)).collect();
        servers.dedup_by(|one, other| one.model == other.model);
        let (statistic, places, by) = (self.how.statistic(), self.how.places(), self.by.clone());
        Ok(Config { statistic, servers, places, by, ..Config::default() })
    }
}

/// A model as it was named on the command line: a folder or file, or the base URL of a server with the model's name there.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    place: String,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    asked_as: String,
    key_env: Option<String>,
    template: Option<PathBuf>,
}

impl Named {
    /// `place` is `PATH`, `URL` or `URL#MODEL`.
    pub(super) fn new(place: &str, name: Option<&str>, remote: &Remote) -> Self {
        if !is_url(place) {
            return Self { name: folder_name(place, name), place: place.to_owned(), server: None };
        }
        let (base, own) = place.split_once('#').map_or((place, None), |(base, own)| (base, Some(own)));
        let asked_as = own.or(remote.model.as_deref()).or(name).unwrap_or("default").to_owned();
        let key_env = remote.key_env.clone();
        let template = template(&remote.template, &asked_as);
        let name = name.unwrap_or(&asked_as).to_owned();
        Self { name, place: base.to_owned(), server: Some(Server { asked_as, key_env, template }) }
    }

    /// A model in a folder or file.
    pub(super) fn folder(name: &str, place: &Path) -> Self {
        Self { name: name.to_owned(), place: place.display().to_string(), server: None }
    }

    /// As a plan names it: of a folder the digests of its files, of a server what it is asked as there.
    pub(super) fn planned(&self, role: ModelRole) -> anyhow::Result<PlannedModel> {
        let (name, place) = (self.name.clone(), self.place.clone());
        let Some(Server { asked_as, key_env, template }) = &self.server else {
            let files = files_of(Path::new(&place))?;
            return Ok(PlannedModel { role, name, place, files, asked_as: None, key_env: None, template: None });
        };
        let template = template.as_deref().map(planned_template).transpose()?;
        let (asked_as, key_env) = (Some(asked_as.clone()), key_env.clone());
        Ok(PlannedModel { role, name, place, files: Vec::new(), asked_as, key_env, template })
    }

    /// The model of a plan, which must be behind a URL.
    pub(super) fn at_server(planned: &PlannedModel) -> anyhow::Result<Self> {
        let template = planned.template.as_ref().map(|template| PathBuf::from(&template.name));
        if let (Some(then), Some(place)) = (&planned.template, &template) {
            anbiq_trace::plan::same(&format!("{}/template", planned.name), then, &planned_template(place)?)?;
        }
        let asked_as = planned.asked_as.clone().unwrap_or_default();
        let server = Server { asked_as, key_env: planned.key_env.clone(), template };
        Ok(Self { name: planned.name.clone(), place: planned.place.clone(), server: Some(server) })
    }

    /// The model in that way; nothing is asked of it yet.
    pub(super) fn open(&self, how: How) -> anyhow::Result<Arc<dyn Model>> {
        let Some(server) = &self.server else {
            let model = open_local(Path::new(&self.place), &self.name)?;
            return Ok(match how {
                How::Probe(_) => Arc::new(Probe::new(model, GoingOn::Greedy)),
                How::Likelihood | How::Nearness => model,
            });
        };
        let form = server.template.as_deref().map(form).transpose()?;
        let going_on = match (how, &form) {
            (How::Probe(places), Some(Form { template: Some(template), .. })) => {
                Some(GoingOn::Text(Box::new(template.clone()), places))
            }
            (How::Probe(places), _) => Some(GoingOn::Conversation(places)),
            _ => None,
        };
        let model = open_upstream(&self.place, &self.name, &server.asked_as, server.key_env.as_deref(), form)?;
        Ok(match going_on {
            Some(going_on) => Arc::new(Probe::new(model, going_on)),
            None => model,
        })
    }

    /// The suspect in that way, beside the teacher.
    pub(super) fn open_suspect(&self, how: How, teacher: &Self) -> anyhow::Result<Arc<dyn Model>> {
        if how != How::Nearness {
            return self.open(how);
        }
        ensure!(
            self.server.is_none() && teacher.server.is_none(),
            "no server gives the whole distribution of its tokens\nhint: `--nearness` wants suspect and teacher as folders"
        );
        nearness(Path::new(&self.place), &self.name, Path::new(&teacher.place))
    }
}

/// A suspect in a folder that is asked how near it comes to the teacher in another one.
pub(super) fn nearness(suspect: &Path, name: &str, teacher: &Path) -> anyhow::Result<Arc<dyn Model>> {
    let teacher = local(teacher, &folder_name(&teacher.to_string_lossy(), None))?;
    Ok(Arc::new(Nearness::new(local(suspect, name)?, &teacher)?))
}

pub(super) fn is_url(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// What the model of a folder or file is called in reports.
pub(super) fn folder_name(place: &str, name: Option<&str>) -> String {
    let own = Path::new(place).file_name().map_or_else(|| place.to_owned(), |name| name.to_string_lossy().into_owned());
    name.map_or(own, str::to_owned)
}

/// The folder of `MODEL=DIR`, or else of the `DIR` that is given for all models.
fn template(given: &[String], model: &str) -> Option<PathBuf> {
    let own = given.iter().find_map(|given| given.strip_prefix(model)?.strip_prefix('='));
    own.or_else(|| given.iter().map(String::as_str).find(|given| !given.contains('='))).map(PathBuf::from)
}

/// How the model of a folder writes conversations.
fn form(folder: &Path) -> anyhow::Result<Form> {
    let template = ChatTemplate::load(folder)?;
    let template = template.with_context(|| format!("`{}` holds no chat template", folder.display()))?;
    let end_of_turn = template.eos().to_owned();
    Ok(Form { template: Some(template), end_of_turn })
}

fn planned_template(folder: &Path) -> anyhow::Result<PlannedFile> {
    let form = form(folder)?;
    let source = form.template.as_ref().map_or("", ChatTemplate::source);
    let sha256 = Digest::of_parts(&[source.as_bytes(), &[0], form.end_of_turn.as_bytes()]);
    Ok(PlannedFile { name: folder.display().to_string(), sha256 })
}
