use serde::{Deserialize, Serialize};

/// A call of a tool, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which the tool's answer is told from others.
    pub id: String,
    /// `function`
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// Which function, and with what.
    pub function: FunctionCall,
}

/// A function with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// Its arguments, as JSON if the model made no mistake.
    #[serde(default)]
    pub arguments: String,
}

/// What a chunk adds to one of the calls of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Its place among the calls; some servers leave it out where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// In its first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, in its first chunk.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// More of its name, which comes first, and of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionDelta>,
}

/// What a chunk adds to a function with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionDelta {
    /// Its name, in its first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}

impl From<anbiq_domain::ToolCall> for ToolCall {
    fn from(call: anbiq_domain::ToolCall) -> Self {
        let anbiq_domain::ToolCall { id, name, arguments } = call;
        Self { id, kind: function(), function: FunctionCall { name, arguments } }
    }
}

impl From<ToolCall> for anbiq_domain::ToolCall {
    fn from(call: ToolCall) -> Self {
        Self { id: call.id, name: call.function.name, arguments: call.function.arguments }
    }
}

fn function() -> String {
    "function".to_owned()
}
