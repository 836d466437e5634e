"use strict";
// Runs inside a box: the answer, then the task's tests, and hands out the token of the run when both have ended.
//
// The job comes as JSON on standard input, which is used up and closed before the answer runs; nothing of it is on disk.
// The answer is a script of its own, so it cannot swallow the text of the tests; the tests are a function whose
// parameters are the built-in names, so what the answer declares under such a name does not reach them.
(() => {
  const fs = require("fs"), vm = require("vm"), real = require("assert");
  const { answer, tests, token, mark } = JSON.parse(fs.readFileSync(0, "utf8"));
  fs.closeSync(0);
  fs.openSync("/dev/null", "r"); // becomes descriptor 0
  fs.unlinkSync(__filename);
  const write = fs.writeSync, leave = process.reallyExit.bind(process);
  const { apply, ownKeys, defineProperty, getOwnPropertyDescriptor: describe } = Reflect;
  const { stringify } = JSON, clone = structuredClone, { AssertionError } = real, { prototype: root } = Object;
  let passed = 0, failed = false, ended = false;

  const counted = (check) => (...given) => {
    let result;
    try {
      result = apply(check, undefined, given);
    } catch (error) {
      failed = true;
      throw error;
    }
    passed += 1;
    return result;
  };
  const wrapped = (library) => {
    const own = counted(library);
    for (const key of Object.keys(library)) {
      const value = library[key];
      own[key] = typeof value === "function" && key !== "AssertionError" ? counted(value) : value;
    }
    return own;
  };
  const strict = wrapped(real.strict), loose = wrapped(real);
  loose.strict = strict.strict = strict;
  const asserts = { "assert": loose, "node:assert": loose, "assert/strict": strict, "node:assert/strict": strict };
  for (const library of [loose, strict, asserts, real, real.strict]) Object.freeze(library);

  const ours = {
    console: Object.freeze({
      ...console,
      // the real one writes a line, and the program leaves with status 0
      assert: counted((held, ...said) => {
        if (!held) throw new AssertionError({ message: `console.assert ${said.join(" ")}` });
      }),
    }),
    require: (name) => (Object.hasOwn(asserts, name) ? asserts[name] : require(name)),
    JSON: Object.freeze({
      parse: JSON.parse,
      // without a toJSON, with which an answer could make anything equal
      stringify: (value, ...rest) => {
        if ("toJSON" in root || "toJSON" in [] || "toJSON" in Object("") || "toJSON" in Object(0)) failed = true;
        return stringify(typeof value === "object" ? clone(value) : value, ...rest);
      },
    }),
  };
  const names = ["Object", "Array", "String", "Number", "Boolean", "Math", "Map", "Set", "Symbol", "Error", "RegExp",
    "Date", "Promise", "parseInt", "parseFloat", "isNaN", "isFinite"];
  for (const name of names) ours[name] = globalThis[name];

  // A built-in function stays what it is; new ones may be added. Object.prototype is left alone: what is read-only there
  // cannot be assigned in any object.
  const lock = (holder) => {
    for (const key of ownKeys(holder)) {
      const { configurable, value } = describe(holder, key);
      if (configurable && typeof value === "function" && key !== "constructor")
        defineProperty(holder, key, { writable: false, configurable: false });
    }
  };
  for (const name of ["Array", "String", "Number", "Boolean", "Map", "Set", "RegExp", "Date", "Promise"]) {
    lock(globalThis[name]);
    lock(globalThis[name].prototype);
  }
  for (const holder of [Object, Math, JSON, Reflect, Symbol]) lock(holder);

  const set = (name, value) => defineProperty(globalThis, name, { value, writable: true, configurable: true });
  const module = { exports: {} };
  set("require", mark ? ours.require : require);
  set("module", module);
  set("exports", module.exports);
  set("__filename", __filename);
  set("__dirname", __dirname);
  if (mark) {
    defineProperty(console, "assert", { value: ours.console.assert, writable: false, configurable: false });
    defineProperty(globalThis, mark, { value: () => { ended = true; } });
  }

  process.once("beforeExit", () => {
    if (!ended || failed) leave(1);
    write(1, `\n${token} ${passed}\n`);
    leave(0);
  });
  // An answer written as a module shares its names with the tests only as a script, in which import is no syntax.
  const asScript = (text) => text.replace(
    /^[ \t]*import\s*(?:([\w$]+)\s*)?,?\s*(?:\*\s*as\s+([\w$]+)\s*|\{([^{}]*)\}\s*)?(?:\bfrom\s*)?(["'][^"'\n]+["'])[ \t]*;?/gm,
    (_, whole, space, names, from) => {
      const parts = (names || "").split(",").map((name) => name.trim().split(/\s+as\s+/)).filter(([name]) => name);
      const wholes = [whole, space, ...parts.filter(([name]) => name === "default").map(([, as]) => as)].filter(Boolean);
      const picked = parts.filter(([name]) => name !== "default").map(([name, as]) => (as ? `${name}: ${as}` : name));
      const made = wholes.map((name) => `${name} = require(${from})`);
      if (picked.length) made.push(`{ ${picked.join(", ")} } = require(${from})`);
      return made.length ? `const ${made.join(", ")};` : `require(${from});`;
    },
  );
  const read = (text) => new vm.Script(text, { filename: "answer.js" });
  let script;
  try {
    script = read(answer);
  } catch (error) {
    try {
      script = read(asScript(answer));
    } catch {
      write(2, `${error.stack.slice(0, 350)}\n`);
      leave(65);
    }
  }
  const keys = Object.keys(ours), values = keys.map((key) => ours[key]);
  const run = mark ? () => {} : vm.compileFunction(tests, keys, { filename: "tests.js" });
  try {
    script.runInThisContext();
    apply(run, undefined, values);
  } catch (error) {
    write(2, `${error instanceof Error ? error.stack.slice(0, 350) : error}\n`);
    leave(1);
  }
  if (!mark) ended = true;
})();
