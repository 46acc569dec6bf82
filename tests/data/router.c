/* A softmax router that renormalises, in C: the line protocol of docs/protocol.md, whole. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char HELLO[] =
    "\"hello\":{\"protocol\":1,\"name\":\"c-router\",\"capabilities\":{\"dtypes\":[\"float32\"],"
    "\"claims\":[{\"renormalize\":[{\"eps\":0,\"floor\":0,\"order\":1}]}]}}";

/* What must stand in a request that is claimed, and what must not. */
static const char *const CLAIMED[] = {
    "\"dtype\":\"float32\"", "\"score\":\"softmax\"", "\"weights_from\":\"scores\"",
    "\"groups\":null", "\"renormalize\":{\"eps\":0.0,\"floor\":0.0,\"order\":1.0}",
    "\"scale\":1.0", "\"logit_softcap\":null", "\"logit_multiplier\":1.0", "\"input_norm\":null",
};
static const char *const UNCLAIMED[] = {
    "\"selection_bias\":", "\"gate_bias\":", "\"gate_delta\":", "\"per_expert_scale\":",
    "\"expert_table\":",
};
#define COUNT(list) (sizeof(list) / sizeof(*(list)))

static const char *after(const char *text, const char *key) {
    const char *found = strstr(text, key);
    return found ? found + strlen(key) : NULL;
}

/* Read a number, or one of the words "nan", "inf", "-inf", and the comma behind it. */
static double number(const char **text) {
    char *end;
    *text += **text == '"';
    double value = strtod(*text, &end);
    end += *end == '"';
    *text = end + (*end == ',');
    return value;
}

static long whole(const char *line, const char *key) {
    const char *text = after(line, key);
    return text ? (long)number(&text) : 0;
}

static double *matrix(const char *line, const char *key, long *rows, long *columns) {
    const char *text = after(after(line, key), "\"shape\":[");
    *rows = (long)number(&text);
    *columns = (long)number(&text);
    text = after(text, "\"values\":[");
    double *values = malloc((*rows * *columns + 1) * sizeof *values);
    for (long i = 0; i < *rows * *columns; i++) values[i] = number(&text);
    return values;
}

static void print_weight(double weight) {
    if (isnan(weight)) printf("\"nan\"");
    else if (isinf(weight)) printf(weight > 0 ? "\"inf\"" : "\"-inf\"");
    else printf("%.9g", weight);
}

/* Choose the largest logits, and put their softmax among themselves into weights. */
static void choose(double *logits, long experts, long top_k, long *ids, double *weights) {
    double sum = 0;
    char *taken = calloc(experts, 1);
    for (long k = 0; k < top_k; k++) {
        long best = -1;
        for (long e = 0; e < experts; e++)
            if (!taken[e] && (best < 0 || logits[e] > logits[best])) best = e;
        taken[best] = 1;
        ids[k] = best;
        weights[k] = exp(logits[best] - logits[ids[0]]);
        sum += weights[k];
    }
    for (long k = 0; k < top_k; k++) weights[k] /= sum;
    free(taken);
}

static void route(const char *line, long top_k) {
    long tokens, hidden, experts, width;
    double *x = matrix(line, "\"hidden\":", &tokens, &hidden);
    double *w = matrix(line, "\"gate_weight\":", &experts, &width);
    double *logits = malloc(experts * sizeof *logits);
    double *weights = malloc((tokens * top_k + 1) * sizeof *weights);
    long *ids = malloc((tokens * top_k + 1) * sizeof *ids);
    for (long t = 0; t < tokens; t++) {
        for (long e = 0; e < experts; e++) {
            logits[e] = 0;
            for (long h = 0; h < hidden; h++) logits[e] += x[t * hidden + h] * w[e * width + h];
        }
        choose(logits, experts, top_k, ids + t * top_k, weights + t * top_k);
    }
    printf("\"routing\":{\"weights\":{\"dtype\":\"float32\",\"shape\":[%ld,%ld],\"values\":[",
           tokens, top_k);
    for (long i = 0; i < tokens * top_k; i++) {
        if (i) putchar(',');
        print_weight(weights[i]);
    }
    printf("]},\"expert_ids\":{\"dtype\":\"int64\",\"shape\":[%ld,%ld],\"values\":[", tokens, top_k);
    for (long i = 0; i < tokens * top_k; i++) printf(i ? ",%ld" : "%ld", ids[i]);
    printf("]}}");
    free(x), free(w), free(logits), free(weights), free(ids);
}

static const char *unclaimed(const char *line) {
    for (size_t i = 0; i < COUNT(CLAIMED); i++)
        if (!strstr(line, CLAIMED[i])) return "this configuration";
    for (size_t i = 0; i < COUNT(UNCLAIMED); i++)
        if (strstr(line, UNCLAIMED[i])) return "this array";
    return NULL;
}

static void reply(const char *line) {
    long top_k = whole(line, "\"top_k\":"), experts = whole(line, "\"num_experts\":");
    printf("{\"id\":%ld,", whole(line, "\"id\":"));
    if (strstr(line, "\"request\":\"hello\"")) printf("%s", HELLO);
    else if (unclaimed(line)) printf("\"unsupported\":\"%s\"", unclaimed(line));
    else if (top_k < 1 || top_k > experts) printf("\"error\":\"top_k=%ld of %ld\"", top_k, experts);
    else route(line, top_k);
    printf("}\n");
    fflush(stdout);
}

int main(void) {
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) reply(line);
    free(line);
    return 0;
}
