//! Findings as SARIF 2.1.0, for code scanning.

use serde_json::{Value, json};

use crate::firewall::symbolic::{CODES, Finding, Severity};

/// The findings as a SARIF log.
pub fn sarif(findings: &[Finding]) -> Value {
    let rules: Vec<Value> =
        CODES.iter().map(|(code, says)| json!({ "id": code, "shortDescription": { "text": says } })).collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "reachwhy",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let level = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let example = finding.example.as_ref().map_or(String::new(), |example| format!(" For example: {example}"));
    let mut result = json!({
        "ruleId": finding.code,
        "ruleIndex": CODES.iter().position(|(code, _)| *code == finding.code),
        "level": level,
        "message": { "text": format!("{}.{example}", finding.message) },
        "locations": [place(finding, finding.line)],
    });
    if !finding.because.is_empty() {
        result["relatedLocations"] = finding.because.iter().map(|line| place(finding, Some(*line))).collect();
    }
    result
}

fn place(finding: &Finding, line: Option<u32>) -> Value {
    let mut place = json!({ "artifactLocation": { "uri": finding.source } });
    if let Some(line) = line.filter(|line| *line > 0) {
        place["region"] = json!({ "startLine": line });
    }
    json!({ "physicalLocation": place })
}
