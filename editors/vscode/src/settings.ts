// The server's settings, read from VS Code's. Names and defaults come from `lsp/src/settings.rs`.

import * as vscode from "vscode";
import { DidChangeConfigurationNotification, type LanguageClient } from "vscode-languageclient/node";

/** The server's `initializationOptions`; the same object is sent under `nanochat` when settings change. */
export function settings(): Record<string, unknown> {
    const configuration = vscode.workspace.getConfiguration("nanochat");
    return {
        maxLines: configuration.get("maxLines"),
        maxTokens: configuration.get("maxTokens"),
        minConfidence: configuration.get("minConfidence"),
        dependencies: configuration.get("dependencies"),
        threads: configuration.get("threads"),
        cacheMegabytes: configuration.get("cacheMegabytes"),
        dataDir: configuration.get("dataDir"),
        // VS Code has already asked the user whether the workspace may run code.
        trusted: vscode.workspace.isTrusted,
    };
}

/** Sends the settings again whenever one changes or the workspace becomes trusted. */
export function watchSettings(client: LanguageClient): vscode.Disposable {
    const send = () =>
        void client
            .sendNotification(DidChangeConfigurationNotification.type, { settings: { nanochat: settings() } })
            .catch((error: unknown) => client.error("cannot send the changed settings", error, false));
    return vscode.Disposable.from(
        vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration("nanochat") && send()),
        vscode.workspace.onDidGrantWorkspaceTrust(send),
    );
}
